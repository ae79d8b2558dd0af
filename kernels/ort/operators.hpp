// The operators of domain com.onnxq: one function for each file that defines some. The objects live as long as the
// library.
#pragma once

#include <vector>

#include "ort/api.hpp"

namespace onnxq {

using Operators = std::vector<const abi::CustomOp*>;

Operators requantize_operators(const Api& api);

}  // namespace onnxq
