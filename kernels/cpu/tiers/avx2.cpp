// AVX2. vpmaddubsw multiplies bytes but saturates the sums of two products to 16 bits; 16-bit operands are exact:
// vpmaddwd adds pairs of products into int32. Where every pair of weights is known to fit, as two of 7 or 4 bits do,
// vpmaddubsw is exact too, and does four products a lane in three instructions instead of four.
#include "cpu/tiers/ymm/gemm16.hpp"
#include "cpu/tiers/ymm/tier.hpp"

namespace onnxq {
namespace {

// Exact where GemmBlock::pairs_fit.
struct PairDot {
  using X = __m256i;
  using W = __m256i;
  static constexpr int kRows = 6;
  static constexpr int kWide[7] = {0, 4, 2, 2, 1, 1, 1};

  ONNXQ_INLINE X expand(__m256i x) { return x; }
  ONNXQ_INLINE W weights(__m256i w) { return w; }
  ONNXQ_INLINE __m256i dot(__m256i sum, X x, W w) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(x, w), _mm256_set1_epi16(1)));
  }
};

// Activations and weights are split into bytes at even and at odd positions, as 16-bit operands.
struct Dot {
  struct Split {
    __m256i even, odd;  // int16
  };
  using X = Split;
  using W = Split;
  static constexpr int kRows = 6;
  static constexpr int kPackedBytes = 64;

  ONNXQ_INLINE X expand(__m256i x) { return {_mm256_and_si256(x, _mm256_set1_epi16(0xff)), _mm256_srli_epi16(x, 8)}; }
  ONNXQ_INLINE W weights(__m256i w) { return {_mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8), _mm256_srai_epi16(w, 8)}; }
  ONNXQ_INLINE __m256i dot(__m256i sum, const X& x, const W& w) {
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(w.even, x.even));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(w.odd, x.odd));
  }
  ONNXQ_INLINE __m256i dot4(__m256i sum, __m256i x, __m256i w) { return PairDot::dot(sum, x, w); }
  ONNXQ_INLINE W load_weights(const int8_t* p) { return {load256(p), load256(p + 32)}; }
  ONNXQ_INLINE void store_weight(int8_t* p, int lane, int row, int8_t w) {
    const int16_t wide = w;
    __builtin_memcpy(p + row % 2 * 32 + lane * 4 + row / 2 * 2, &wide, 2);
  }
  static void gemm(const GemmBlock& b) { b.pairs_fit ? onnxq::gemm<PairDot>(b) : gemm16(b); }
  ONNXQ_INLINE void opaque(X& x) { __asm__ volatile("" : "+x"(x.even), "+x"(x.odd)); }
};

}  // namespace

constexpr Tier tiers::avx2 = ymm_tier<Dot>();

}  // namespace onnxq
