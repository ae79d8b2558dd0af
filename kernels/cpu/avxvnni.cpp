// AVX-VNNI: vpdpbusd on 256-bit registers, for CPUs without AVX-512.
#include "cpu/avxvnni.hpp"

#include "cpu/features.hpp"
#include "cpu/ymm_depthwise.hpp"

namespace onnxq {
namespace {

struct Dot {
  using X = __m256i;
  using W = __m256i;
  static constexpr int kRows = 6;
  static constexpr int kWide[7] = {0, 4, 2, 2, 1, 1, 1};
  static constexpr int kPackedBytes = 32;

  ONNXQ_INLINE X expand(__m256i x) { return x; }
  ONNXQ_INLINE W weights(__m256i w) { return w; }
  ONNXQ_INLINE __m256i dot(__m256i sum, X x, W w) { return _mm256_dpbusd_avx_epi32(sum, x, w); }
  ONNXQ_INLINE __m256i dot4(__m256i sum, __m256i x, __m256i w) { return _mm256_dpbusd_avx_epi32(sum, x, w); }
  ONNXQ_INLINE W load_weights(const int8_t* p) { return load256(p); }
  ONNXQ_INLINE void store_weight(int8_t* p, int lane, int row, int8_t w) { p[lane * 4 + row] = w; }
};

// 12 independent accumulators, as the GEMM's widest block.
int64_t peak(int64_t repeats) {
  constexpr int kAccumulators = 12;
  constexpr int64_t kInner = 1'000'000 / (kAccumulators * 32);
  __m256i acc[kAccumulators];
  const __m256i x = _mm256_set1_epi8(3), w = _mm256_set1_epi8(2);
  ONNXQ_UNROLL
  for (int k = 0; k < kAccumulators; k++) {
    acc[k] = _mm256_setzero_si256();
    __asm__ volatile("" : "+x"(acc[k]));  // else all would be one
  }
  for (int64_t i = 0; i < repeats * kInner; i++) {
    ONNXQ_UNROLL
    for (int k = 0; k < kAccumulators; k++) acc[k] = Dot::dot(acc[k], x, w);
    __asm__ volatile("");
  }
  ONNXQ_UNROLL
  for (int k = 0; k < kAccumulators; k++) __asm__ volatile("" : : "x"(acc[k]));
  return repeats * kInner * kAccumulators * 32;
}

}  // namespace

const Tier kAvxVnni = {"avxvnni",
                       [] { return cpu_features().avxvnni; },
                       {0, Dot::kRows, Dot::kRows, Dot::kRows, Dot::kRows},
                       gemm<Dot>,
                       epilogue,
                       unpack4,
                       gemm4<Dot>,
                       pack_depthwise<Dot>,
                       depthwise<Dot>,
                       false,
                       peak};

}  // namespace onnxq
