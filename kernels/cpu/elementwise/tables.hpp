// The inner loops of each instruction set, for the tiers (cpu/tiers/tier.hpp).
#pragma once

#include "cpu/elementwise/elementwise.hpp"

namespace onnxq {

const Elementwise& elementwise_portable();
const Elementwise& elementwise_avx2();
const Elementwise& elementwise_avx512();  // with VBMI's lookup where the CPU has it

// With AVX-512 VBMI: y[i] = table[x[i]].
void lookup_vbmi(const uint8_t* table, const uint8_t* x, uint8_t* y, int64_t n);
// Elementwise::table_sum.
int64_t table_sum_vbmi(const ValueTable& table, uint8_t from, const uint8_t* x, int64_t n);

}  // namespace onnxq
