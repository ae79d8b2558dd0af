// The operators of domain com.onnxq: one function for each file that defines some. The objects live as long as the
// library.
#pragma once

#include <vector>

#include "ort/api.hpp"

namespace onnxq {

using Operators = std::vector<const abi::CustomOp*>;

inline Operators join(const std::vector<Operators>& lists) {
  Operators all;
  for (const Operators& list : lists) all.insert(all.end(), list.begin(), list.end());
  return all;
}

Operators conv_operators(const Api& api);
Operators elementwise_operators(const Api& api);
Operators lookup_operators(const Api& api);
Operators channels_last_operators(const Api& api);
Operators concat_operators(const Api& api);
Operators pool_operators(const Api& api);
Operators matmul_operators(const Api& api);
Operators normalization_operators(const Api& api);

}  // namespace onnxq
