// Rescaling of a few rows of sums to 64 bytes, to be done between tile products. Included by amx.cpp only.
//
// The arithmetic is that of zmm/rescale.hpp. A residual of bytes costs one permutation and one multiply-add for every 8
// channels: vpermb moves the bytes of even (odd) channels to lanes of 64 bits, and vpmadd52luq adds their products to
// those of the sums. It is exact if the products are below 2^52: bytes below 2^8, multipliers below 2^31, shifted by
// kMostTileShift + 1.
//
// Arrays of vectors are indexed by constants only, so that the compiler keeps them in registers.
#pragma once

#include "cpu/tiers/zmm/rescale.hpp"

namespace onnxq {
namespace {

template <int N>
struct Count {
  static constexpr int value = N;
};

// f(Count<0>{}), … f(Count<N - 1>{}), N up to 4.
template <int N, class F>
ONNXQ_INLINE void each(const F& f) {
  f(Count<0>{});
  if constexpr (N > 1) f(Count<1>{});
  if constexpr (N > 2) f(Count<2>{});
  if constexpr (N > 3) f(Count<3>{});
}
#define ONNXQ_EACH [&](auto index) __attribute__((always_inline))

ONNXQ_INLINE __mmask64 first_bytes(ptrdiff_t n) { return n >= 64 ? ~__mmask64{0} : (__mmask64{1} << n) - 1; }

// S: kDoubled or k32, with one residual multiplier for all channels, or kVector. With a residual kDoubled has no room
// for a zero point of it. V: vectors of channels in a row, 1, 2 or 4.
template <Shift S, bool HasResidual, bool Signed, int V>
class RowRescaler {
 public:
  static constexpr int kVectors = V, kRows = 4 / V, kBytes = 1;  // kBytes: of a result

  ONNXQ_INLINE_MEMBER explicit RowRescaler(const EpilogueBlock& e)
      : clips_(e.range.qmax - e.range.qmin != 255),
        flips_(e.residual_type == IntType::S8),
        shifts_(e.range.zero_point != 0),
        y_stride_(e.y_stride),
        residual_stride_(HasResidual ? e.residual_stride : 0) {
    order_ = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    low_ = _mm512_set1_epi8(static_cast<char>(e.range.qmin));
    high_ = _mm512_set1_epi8(static_cast<char>(e.range.qmax));
    halve_ = _mm512_set1_epi16(1 << 14);
    zero_point_ = _mm512_set1_epi16(static_cast<int16_t>(e.range.zero_point));
    flip_ = _mm512_set1_epi8(static_cast<char>(0x80));
    if (!HasResidual) return;
    // Byte 8·j of the index of vector v: the byte of its channel 2·j, or 2·j + 1.
    const __m512i even = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
    each<4>(ONNXQ_EACH {
      constexpr int v = index.value;
      even_bytes_[v] = _mm512_add_epi64(even, _mm512_set1_epi64(kVector * v));
      odd_bytes_[v] = _mm512_add_epi64(even, _mm512_set1_epi64(kVector * v + 1));
    });
  }

  // In bytes.
  ptrdiff_t y_stride() const { return y_stride_; }
  ptrdiff_t residual_stride() const { return residual_stride_; }

  // The constants of the channels of a row, from e.y's first plus `channel` on.
  ONNXQ_INLINE_MEMBER void open(const EpilogueBlock& e, int channel) {
    each<V>(ONNXQ_EACH {
      constexpr int v = index.value, each_channel = S == Shift::kVector ? v : 0;
      const int n = (e.one_panel ? 0 : channel) + kVector * v;
      const Constants c = constants_of<S, Residual::kNone>(e, n);
      even_[v] = c.even;
      odd_[v] = c.odd;
      if (v > 0 && S != Shift::kVector) return;
      __m512i round_even = c.round_even, round_odd = c.round_odd;
      if (HasResidual) {
        const __m512i by = _mm512_loadu_si512(e.residual_multiplier + n);
        const __m512i shift = _mm512_set1_epi64(e.residual_shift + (S == Shift::kDoubled));
        const __m512i even = _mm512_sllv_epi64(_mm512_maskz_mov_epi32(0x5555, by), shift);
        const __m512i odd = _mm512_sllv_epi64(_mm512_srli_epi64(by, 32), shift);
        residual_even_[each_channel] = even;
        if (S == Shift::kVector) residual_odd_[each_channel] = odd;
        if (S != Shift::kDoubled) {
          const __m512i zero_point = _mm512_set1_epi64(e.residual_zero_point + (flips_ ? 128 : 0));
          round_even = _mm512_sub_epi64(round_even, _mm512_mullo_epi64(zero_point, even));
          round_odd = _mm512_sub_epi64(round_odd, _mm512_mullo_epi64(zero_point, odd));
        }
      }
      if (S != Shift::kDoubled) round_even_[each_channel] = round_even;
      if (S != Shift::kVector) return;
      round_odd_[each_channel] = round_odd;
      shift_even_[each_channel] = c.shift_even;
      shift_odd_[each_channel] = c.shift_odd;
    });
    const int there = e.n - channel;
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
    each<4>(ONNXQ_EACH {
      constexpr int i = index.value, c = i % V, each_channel = S == Shift::kVector ? c : 0;
      constexpr __mmask64 kLow = 0x0101010101010101;
      const int32_t* const sums = acc + i / V * kPanel + c * kVector;
      __m512i even = _mm512_mul_epi32(_mm512_load_si512(sums), even_[c]);
      __m512i odd = _mm512_mul_epi32(load_odd_lanes(sums), odd_[c]);
      if (S != Shift::kDoubled) {
        even = _mm512_add_epi64(even, round_even_[each_channel]);
        odd = _mm512_add_epi64(odd, S == Shift::kVector ? round_odd_[each_channel] : round_even_[0]);
      }
      if (HasResidual) {
        const __m512i even_residual = _mm512_maskz_permutexvar_epi8(kLow, even_bytes_[i], bytes);
        const __m512i odd_residual = _mm512_maskz_permutexvar_epi8(kLow, odd_bytes_[i], bytes);
        even = _mm512_madd52lo_epu64(even, even_residual, residual_even_[each_channel]);
        odd = _mm512_madd52lo_epu64(odd, odd_residual,
                                    S == Shift::kVector ? residual_odd_[each_channel] : residual_even_[0]);
      }
      if (S == Shift::kVector) {
        even = _mm512_srav_epi64(even, shift_even_[each_channel]);
        odd = _mm512_srav_epi64(odd, shift_odd_[each_channel]);
        v[i] = _mm512_mask_shuffle_epi32(even, 0xaaaa, odd, _MM_PERM_CCAA);
      } else {
        v[i] = _mm512_mask_shuffle_epi32(odd, 0x5555, even, _MM_PERM_DDBB);
      }
    });
    __m512i words_low = _mm512_packs_epi32(v[0], v[1]), words_high = _mm512_packs_epi32(v[2], v[3]);
    if (S == Shift::kDoubled) {
      words_low = _mm512_mulhrs_epi16(words_low, halve_);
      words_high = _mm512_mulhrs_epi16(words_high, halve_);
      if (shifts_) {
        words_low = _mm512_add_epi16(words_low, zero_point_);
        words_high = _mm512_add_epi16(words_high, zero_point_);
      }
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
    const ptrdiff_t stride = residual_stride_;
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
    each<4>(ONNXQ_EACH {
      constexpr int i = index.value;
      row[i] = i < count ? _mm_maskz_loadu_epi8(mask, from + i * stride) : _mm_setzero_si128();
    });
    const __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(row[0]), row[1], 1);
    const __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(row[2]), row[3], 1);
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
  }

  ONNXQ_INLINE_MEMBER void store_rows(uint8_t* to, __m512i codes, int count) const {
    const ptrdiff_t stride = y_stride_;
    if (V == 4) return _mm512_mask_storeu_epi8(to, mask_, codes);
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

  static constexpr int kEach = S == Shift::kVector ? V : 1;  // constants that differ from channel to channel

  const bool clips_, flips_, shifts_;  // clips_: otherwise packing saturates already
  const ptrdiff_t y_stride_, residual_stride_;
  __m512i order_, low_, high_, halve_, zero_point_, flip_;
  __m512i even_[V], odd_[V];  // multipliers
  __m512i round_even_[kEach], round_odd_[kEach], shift_even_[kEach], shift_odd_[kEach];
  __m512i residual_even_[kEach], residual_odd_[kEach];
  __m512i even_bytes_[4], odd_bytes_[4];
  __mmask64 mask_ = 0;  // of a row's channels
  bool whole_ = false;
};

}  // namespace
}  // namespace onnxq
