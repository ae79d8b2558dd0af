#pragma once

#include "cpu/tier.hpp"

namespace onnxq {

extern const Tier kAvx512Vnni;

}  // namespace onnxq
