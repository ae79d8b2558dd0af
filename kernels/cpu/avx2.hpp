#pragma once

#include "cpu/tier.hpp"

namespace onnxq {

extern const Tier kAvx2;

}  // namespace onnxq
