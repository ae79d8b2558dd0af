// AVX-VNNI: vpdpbusd on 256-bit registers, for CPUs without AVX-512.
#include "cpu/tiers/ymm/tier.hpp"

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
  static void gemm(const GemmBlock& b) { onnxq::gemm<Dot>(b); }
  ONNXQ_INLINE void opaque(X& x) { __asm__ volatile("" : "+x"(x)); }
};

}  // namespace

constexpr Tier tiers::avxvnni = ymm_tier<Dot>();

}  // namespace onnxq
