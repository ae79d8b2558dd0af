// The tier of a class D (gemm.hpp, depthwise.hpp): its table of kernels, and its peak.
//
// A tier adds to class D:
//   opaque(X&)               hides from the compiler that a value is unchanged
//   gemm(const GemmBlock&)   of at most kRows rows
#pragma once

#include "cpu/elementwise/tables.hpp"
#include "cpu/tiers/ymm/depthwise.hpp"

namespace onnxq {
namespace {

// As many independent accumulators as the GEMM's widest block has.
template <class D>
int64_t peak(int64_t repeats) {
  constexpr int kAccumulators = 2 * D::kRows;
  constexpr int64_t kInner = 1'000'000 / (kAccumulators * 32);
  __m256i acc[kAccumulators];
  typename D::X x = D::expand(_mm256_set1_epi8(3));
  const typename D::W w = D::weights(_mm256_set1_epi8(2));
  ONNXQ_UNROLL
  for (int k = 0; k < kAccumulators; k++) {
    acc[k] = _mm256_setzero_si256();
    __asm__ volatile("" : "+x"(acc[k]));  // otherwise they would be merged into one
  }
  for (int64_t i = 0; i < repeats * kInner; i++) {
    ONNXQ_UNROLL
    for (int k = 0; k < kAccumulators; k++) {
      D::opaque(x);  // otherwise the products would be computed once
      acc[k] = D::dot(acc[k], x, w);
    }
  }
  ONNXQ_UNROLL
  for (int k = 0; k < kAccumulators; k++) __asm__ volatile("" : : "x"(acc[k]));
  return repeats * kInner * kAccumulators * 32;
}

template <class D>
constexpr Tier ymm_tier() {
  return {{0, D::kRows, D::kRows, D::kRows, D::kRows},
          D::gemm,
          epilogue,
          unpack4,
          gemm4<D>,
          pack_depthwise<D>,
          depthwise<D>,
          false,
          elementwise_avx2,
          peak<D>};
}

}  // namespace
}  // namespace onnxq
