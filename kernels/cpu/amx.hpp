#pragma once

#include "cpu/tier.hpp"

namespace onnxq {

extern const Tier kAmx;

}  // namespace onnxq
