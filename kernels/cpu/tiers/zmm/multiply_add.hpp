// The multiply-add that the parts of the AVX-512 VNNI tier share. Included by avx512vnni.cpp only.
#pragma once

#include <immintrin.h>

#include "cpu/common/inline.hpp"
#include "cpu/tiers/tier.hpp"

namespace onnxq {
namespace {

// The instruction itself: with the intrinsic GCC copies accumulators to the stack and back.
ONNXQ_INLINE void multiply_add(__m512i& acc, __m512i x, __m512i w) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(x), "v"(w));
}

}  // namespace
}  // namespace onnxq
