// The inner loops of each instruction set.
#pragma once

#include "cpu/elementwise.hpp"

namespace onnxq {

extern const Elementwise kElementwisePortable, kElementwiseAvx2, kElementwiseAvx512;

// With AVX-512 VBMI: y[i] = table[x[i]].
void lookup_vbmi(const uint8_t* table, const uint8_t* x, uint8_t* y, int64_t n);

}  // namespace onnxq
