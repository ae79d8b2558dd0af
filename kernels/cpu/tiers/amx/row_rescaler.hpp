// Rescaling of single rows of 64 sums to bytes, to be done between tile products. Included by amx.cpp only.
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

// S: kDoubled, k32 or kVector. With a residual kDoubled has no room for a zero point of it.
template <Shift S, bool HasResidual, bool Signed>
class RowRescaler {
 public:
  ONNXQ_INLINE_MEMBER explicit RowRescaler(const EpilogueBlock& e) : e_(e) {
    order_ = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    low_ = _mm512_set1_epi8(static_cast<char>(e.range.qmin));
    high_ = _mm512_set1_epi8(static_cast<char>(e.range.qmax));
    halve_ = _mm512_set1_epi16(1 << 14);
    zero_point_ = _mm512_set1_epi16(static_cast<int16_t>(e.range.zero_point));
    clips_ = e.range.qmax - e.range.qmin != 255;  // otherwise packing saturates already
    flip_ = _mm512_set1_epi8(static_cast<char>(0x80));
    flips_ = e.residual_type == IntType::S8;
    if (!HasResidual) return;
    alignas(64) uint8_t index[8][64] = {};
    for (int v = 0; v < 8; v++)
      for (int j = 0; j < 8; j++) index[v][8 * j] = static_cast<uint8_t>(kVector * (v / 2) + 2 * j + v % 2);
    for (int v = 0; v < 4; v++) {
      even_bytes_[v] = _mm512_load_si512(index[2 * v]);
      odd_bytes_[v] = _mm512_load_si512(index[2 * v + 1]);
    }
  }

  // The constants of 64 channels, from e.y's first plus `channel` on.
  ONNXQ_INLINE_MEMBER void open(int channel) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) {
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
    mask_ = first_bytes(e_.n - channel);
  }

  // acc: 64 sums, aligned. y, residual: of the first of the channels.
  ONNXQ_INLINE_MEMBER void row(const int32_t* acc, uint8_t* y, const uint8_t* residual) const {
    const bool whole = mask_ == ~__mmask64{0};
    __m512i v[4];
    __m512i bytes = _mm512_setzero_si512();
    if (HasResidual) {
      bytes = whole ? _mm512_loadu_si512(residual) : _mm512_maskz_loadu_epi8(mask_, residual);
      if (flips_) bytes = _mm512_xor_si512(bytes, flip_);
    }
    constexpr __mmask64 kLow = 0x0101010101010101;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
      __m512i even = _mm512_mul_epi32(_mm512_load_si512(acc + kVector * i), c_[i].even);
      __m512i odd = _mm512_mul_epi32(load_odd_lanes(acc + kVector * i), c_[i].odd);
      if (S != Shift::kDoubled) {
        even = _mm512_add_epi64(even, c_[i].round_even);
        odd = _mm512_add_epi64(odd, c_[i].round_odd);
      }
      if (HasResidual) {
        const __m512i r_even = _mm512_maskz_permutexvar_epi8(kLow, even_bytes_[i], bytes);
        const __m512i r_odd = _mm512_maskz_permutexvar_epi8(kLow, odd_bytes_[i], bytes);
        even = _mm512_madd52lo_epu64(even, r_even, c_[i].residual_even);
        odd = _mm512_madd52lo_epu64(odd, r_odd, c_[i].residual_odd);
      }
      if (S == Shift::kVector) {
        even = _mm512_srav_epi64(even, c_[i].shift_even);
        odd = _mm512_srav_epi64(odd, c_[i].shift_odd);
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
    codes = _mm512_permutexvar_epi32(order_, codes);
    if (whole)
      _mm512_storeu_si512(y, codes);
    else
      _mm512_mask_storeu_epi8(y, mask_, codes);
  }

 private:
  const EpilogueBlock& e_;
  __m512i order_, low_, high_, halve_, zero_point_, flip_;
  bool clips_, flips_;
  Constants c_[4];
  __m512i even_bytes_[4], odd_bytes_[4];
  __mmask64 mask_ = 0;
};

}  // namespace
}  // namespace onnxq
