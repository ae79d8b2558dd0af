#pragma once

#include "cpu/tier.hpp"

namespace onnxq {

extern const Tier kAvxVnni;

}  // namespace onnxq
