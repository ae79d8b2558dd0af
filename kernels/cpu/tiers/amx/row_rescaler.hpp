// Rescaling of a few rows of sums to 64 bytes, to be done between tile products. Included by amx.cpp only.
//
// The arithmetic is that of zmm/rescale.hpp. A residual of bytes costs one permutation and one multiply-add for every 8
// channels: vpermb moves the bytes of even (odd) channels to lanes of 64 bits, and vpmadd52luq adds their products to
// those of the sums. It is exact if the products are below 2^52: bytes below 2^8, multipliers below 2^31, shifted by
// kMostTileShift + 1.
#pragma once

#include "cpu/tiers/zmm/rescale.hpp"

namespace onnxq {
namespace {

ONNXQ_INLINE __mmask64 first_bytes(ptrdiff_t n) { return n >= 64 ? ~__mmask64{0} : (__mmask64{1} << n) - 1; }

// S: kDoubled, k32 or kVector. With a residual kDoubled has no room for a zero point of it. V: vectors of channels in a
// row, 1, 2 or 4.
template <Shift S, bool HasResidual, bool Signed, int V>
class RowRescaler {
 public:
  static constexpr int kRows = 4 / V;

  ONNXQ_INLINE_MEMBER explicit RowRescaler(const EpilogueBlock& e)
      : e_(e), clips_(e.range.qmax - e.range.qmin != 255), flips_(e.residual_type == IntType::S8) {
    order_ = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    low_ = _mm512_set1_epi8(static_cast<char>(e.range.qmin));
    high_ = _mm512_set1_epi8(static_cast<char>(e.range.qmax));
    halve_ = _mm512_set1_epi16(1 << 14);
    zero_point_ = _mm512_set1_epi16(static_cast<int16_t>(e.range.zero_point));
    flip_ = _mm512_set1_epi8(static_cast<char>(0x80));
    if (!HasResidual) return;
    alignas(64) uint8_t index[8][64] = {};
    for (int v = 0; v < 8; v++)
      for (int j = 0; j < 8; j++) index[v][8 * j] = static_cast<uint8_t>(kVector * (v / 2) + 2 * j + v % 2);
    for (int v = 0; v < 4; v++) {
      even_bytes_[v] = _mm512_load_si512(index[2 * v]);
      odd_bytes_[v] = _mm512_load_si512(index[2 * v + 1]);
    }
  }

  // The constants of the channels of a row, from e.y's first plus `channel` on.
  ONNXQ_INLINE_MEMBER void open(int channel) {
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) {
      const int n = channel + kVector * v;
      c_[v] = constants_of<S, Residual::kNone>(e_, n);
      if (!HasResidual) continue;
      const __m512i by = _mm512_loadu_si512(e_.residual_multiplier + n);
      const __m512i even = _mm512_maskz_mov_epi32(0x5555, by), odd = _mm512_srli_epi64(by, 32);
      const __m512i shift = _mm512_set1_epi64(e_.residual_shift + (S == Shift::kDoubled));
      c_[v].residual_even = _mm512_sllv_epi64(even, shift);
      c_[v].residual_odd = _mm512_sllv_epi64(odd, shift);
      if (S == Shift::kDoubled) continue;
      const __m512i zero_point = _mm512_set1_epi64(e_.residual_zero_point + (flips_ ? 128 : 0));
      c_[v].round_even = _mm512_sub_epi64(c_[v].round_even, _mm512_mullo_epi64(zero_point, c_[v].residual_even));
      c_[v].round_odd = _mm512_sub_epi64(c_[v].round_odd, _mm512_mullo_epi64(zero_point, c_[v].residual_odd));
    }
    const int there = e_.n - channel;
    mask_ = first_bytes(there);
    whole_ = there >= kVector * V;
  }

  // Rescales `count` rows, 1 to kRows. acc: their sums, [kRows][kPanel], aligned; all are read. y, residual: of the
  // first row and channel.
  ONNXQ_INLINE_MEMBER void rows(const int32_t* acc, uint8_t* y, const uint8_t* residual, int count) const {
    __m512i v[4];
    __m512i bytes = _mm512_setzero_si512();
    if (HasResidual) {
      bytes = load_rows(residual, count);
      if (flips_) bytes = _mm512_xor_si512(bytes, flip_);
    }
    constexpr __mmask64 kLow = 0x0101010101010101;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
      const int32_t* const sums = acc + i / V * kPanel + i % V * kVector;
      const Constants& c = c_[i % V];
      __m512i even = _mm512_mul_epi32(_mm512_load_si512(sums), c.even);
      __m512i odd = _mm512_mul_epi32(load_odd_lanes(sums), c.odd);
      if (S != Shift::kDoubled) {
        even = _mm512_add_epi64(even, c.round_even);
        odd = _mm512_add_epi64(odd, c.round_odd);
      }
      if (HasResidual) {
        even = _mm512_madd52lo_epu64(even, _mm512_maskz_permutexvar_epi8(kLow, even_bytes_[i], bytes), c.residual_even);
        odd = _mm512_madd52lo_epu64(odd, _mm512_maskz_permutexvar_epi8(kLow, odd_bytes_[i], bytes), c.residual_odd);
      }
      if (S == Shift::kVector) {
        even = _mm512_srav_epi64(even, c.shift_even);
        odd = _mm512_srav_epi64(odd, c.shift_odd);
        v[i] = _mm512_mask_shuffle_epi32(even, 0xaaaa, odd, _MM_PERM_CCAA);
      } else {
        v[i] = _mm512_mask_shuffle_epi32(odd, 0x5555, even, _MM_PERM_DDBB);
      }
    }
    __m512i words_low = _mm512_packs_epi32(v[0], v[1]), words_high = _mm512_packs_epi32(v[2], v[3]);
    if (S == Shift::kDoubled) {
      words_low = _mm512_add_epi16(_mm512_mulhrs_epi16(words_low, halve_), zero_point_);
      words_high = _mm512_add_epi16(_mm512_mulhrs_epi16(words_high, halve_), zero_point_);
    }
    __m512i codes;
    if (Signed) {
      codes = _mm512_packs_epi16(words_low, words_high);
      if (clips_) codes = _mm512_min_epi8(_mm512_max_epi8(codes, low_), high_);
    } else {
      codes = _mm512_packus_epi16(words_low, words_high);
      if (clips_) codes = _mm512_min_epu8(_mm512_max_epu8(codes, low_), high_);
    }
    store_rows(y, _mm512_permutexvar_epi32(order_, codes), count);
  }

 private:
  ONNXQ_INLINE_MEMBER __m512i load_rows(const uint8_t* from, int count) const {
    const ptrdiff_t stride = e_.residual_stride;
    if (V == 4) return whole_ ? _mm512_loadu_si512(from) : _mm512_maskz_loadu_epi8(mask_, from);
    if (count == kRows && whole_ && stride == kVector * V) return _mm512_loadu_si512(from);
    if (V == 2) {
      const auto mask = static_cast<__mmask32>(mask_);
      const __m256i low = _mm256_maskz_loadu_epi8(mask, from);
      if (count == 1) return _mm512_castsi256_si512(low);
      return _mm512_inserti64x4(_mm512_castsi256_si512(low), _mm256_maskz_loadu_epi8(mask, from + stride), 1);
    }
    const auto mask = static_cast<__mmask16>(mask_);
    __m128i row[4];
    for (int i = 0; i < 4; i++)
      row[i] = i < count ? _mm_maskz_loadu_epi8(mask, from + i * stride) : _mm_setzero_si128();
    const __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(row[0]), row[1], 1);
    const __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(row[2]), row[3], 1);
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
  }

  ONNXQ_INLINE_MEMBER void store_rows(uint8_t* to, __m512i codes, int count) const {
    const ptrdiff_t stride = e_.y_stride;
    if (V == 4) return whole_ ? _mm512_storeu_si512(to, codes) : _mm512_mask_storeu_epi8(to, mask_, codes);
    if (count == kRows && whole_ && stride == kVector * V) return _mm512_storeu_si512(to, codes);
    if (V == 2) {
      const auto mask = static_cast<__mmask32>(mask_);
      _mm256_mask_storeu_epi8(to, mask, _mm512_castsi512_si256(codes));
      if (count == 2) _mm256_mask_storeu_epi8(to + stride, mask, _mm512_extracti64x4_epi64(codes, 1));
      return;
    }
    const auto mask = static_cast<__mmask16>(mask_);
    const __m256i low = _mm512_castsi512_si256(codes), high = _mm512_extracti64x4_epi64(codes, 1);
    _mm_mask_storeu_epi8(to, mask, _mm256_castsi256_si128(low));
    if (count > 1) _mm_mask_storeu_epi8(to + stride, mask, _mm256_extracti128_si256(low, 1));
    if (count > 2) _mm_mask_storeu_epi8(to + 2 * stride, mask, _mm256_castsi256_si128(high));
    if (count > 3) _mm_mask_storeu_epi8(to + 3 * stride, mask, _mm256_extracti128_si256(high, 1));
  }

  const EpilogueBlock& e_;
  const bool clips_, flips_;  // packing to 8 bits saturates already
  __m512i order_, low_, high_, halve_, zero_point_, flip_;
  Constants c_[V];
  __m512i even_bytes_[4], odd_bytes_[4];
  __mmask64 mask_ = 0;  // of a row's channels
  bool whole_ = false;
};

}  // namespace
}  // namespace onnxq
