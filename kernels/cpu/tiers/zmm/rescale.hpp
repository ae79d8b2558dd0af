// Rescaling of 16 accumulators: what the epilogues on 512-bit vectors share.
//
// vpmuldq multiplies the even int32 lanes into int64; the odd ones are moved down while they are loaded. Both halves
// are rounded, shifted and merged again. A shift of 32 takes no instruction at all: the high halves are taken.
//
// Where multipliers have a spare bit they are doubled, and one bit more is rounded, in 16 bits: with Σ the sum,
// floor((Σ + 2^31) / 2^32) = (t + 1) >> 1 for t = floor(2Σ / 2^32), and vpmulhrsw does (t + 1) >> 1 for 32 channels. t
// saturates to 16 bits first, which affects only values that saturate in 8 bits anyway.
#pragma once

#include <immintrin.h>

#include "cpu/common/inline.hpp"
#include "cpu/tiers/tier.hpp"

namespace onnxq {
namespace {

enum class Shift { k32, kDoubled, kUniform, kVector };
constexpr Shift undoubled(Shift s) { return s == Shift::kDoubled ? Shift::k32 : s; }
enum class Residual { kNone, kU8, kS8, kS16, kS32 };

struct Constants {
  __m512i even, odd;  // multipliers of the even and of the odd channels
  __m512i round_even, round_odd;
  __m512i shift_even, shift_odd;
  __m512i residual_even, residual_odd;
  __m512i residual_zero_point;  // where it is not part of the rounding
};

ONNXQ_INLINE __m512i odd_lanes(__m512i v) { return _mm512_shuffle_epi32(v, _MM_PERM_DDBB); }

// The odd lanes of 16 values in memory: on a load port, where a shuffle of registers would occupy a multiplier's port.
ONNXQ_INLINE __m512i load_odd_lanes(const int32_t* p) {
  __m512i v;
  __asm__("vmovshdup %1, %0" : "=v"(v) : "m"(*reinterpret_cast<const __m512i*>(p)));
  return v;
}

// Half a unit, plus the zero point: `narrow` guarantees the room.
ONNXQ_INLINE __m512i rounding(const EpilogueBlock& e, __m512i shift) {
  const __m512i one = _mm512_set1_epi64(1);
  const __m512i half = _mm512_sllv_epi64(one, _mm512_sub_epi64(shift, one));
  return _mm512_add_epi64(half, _mm512_sllv_epi64(_mm512_set1_epi64(e.range.zero_point), shift));
}

template <Shift S, Residual R>
ONNXQ_INLINE Constants constants_of(const EpilogueBlock& e, int n) {
  Constants c;
  c.even = _mm512_loadu_si512(e.multiplier + n);
  if (S == Shift::kDoubled) c.even = _mm512_slli_epi32(c.even, 1);
  c.odd = odd_lanes(c.even);
  if (S == Shift::kVector) {
    const __m512i shift = _mm512_loadu_si512(e.shift + n);
    c.shift_even = _mm512_and_si512(shift, _mm512_set1_epi64(0xff));
    c.shift_odd = _mm512_srli_epi64(shift, 32);
    c.round_even = rounding(e, c.shift_even);
    c.round_odd = rounding(e, c.shift_odd);
  } else if (S == Shift::kDoubled) {
    c.shift_even = c.shift_odd = c.round_even = c.round_odd = _mm512_setzero_si512();
  } else {
    c.shift_even = c.shift_odd = _mm512_setzero_si512();
    c.round_even = c.round_odd = rounding(e, _mm512_set1_epi64(e.uniform_shift));
  }
  c.residual_even = c.residual_odd = c.residual_zero_point = _mm512_setzero_si512();
  if (R != Residual::kNone && S == Shift::kDoubled) {
    const __m512i by = _mm512_set1_epi32(e.residual_shift + 1);
    c.residual_even = _mm512_sllv_epi32(_mm512_loadu_si512(e.residual_multiplier + n), by);
    c.residual_odd = odd_lanes(c.residual_even);
    c.residual_zero_point = _mm512_set1_epi32(e.residual_zero_point);
  } else if (R != Residual::kNone) {
    c.residual_even = _mm512_loadu_si512(e.residual_multiplier + n);
    c.residual_odd = odd_lanes(c.residual_even);
    // The residual's zero point is part of the rounding constant too. It may be any int32: 64-bit products.
    const __m512i zero_point = _mm512_set1_epi64(int64_t{e.residual_zero_point} * (int64_t{1} << e.residual_shift));
    const __m512i mask = _mm512_set1_epi64(0xffffffff);
    c.round_even =
        _mm512_sub_epi64(c.round_even, _mm512_mullo_epi64(zero_point, _mm512_and_si512(c.residual_even, mask)));
    c.round_odd = _mm512_sub_epi64(c.round_odd, _mm512_mullo_epi64(zero_point, _mm512_and_si512(c.residual_odd, mask)));
  }
  return c;
}

// The scaled int32 of 16 channels, zero point included; for kDoubled t, without it.
template <Shift S, Residual R>
ONNXQ_INLINE __m512i scale16(const int32_t* acc, __m512i residual, const Constants& c, __m128i count) {
  __m512i even = _mm512_mul_epi32(_mm512_load_si512(acc), c.even);
  __m512i odd = _mm512_mul_epi32(load_odd_lanes(acc), c.odd);
  if (S != Shift::kDoubled) {
    even = _mm512_add_epi64(even, c.round_even);
    odd = _mm512_add_epi64(odd, c.round_odd);
  }
  if (R != Residual::kNone) {
    even = _mm512_add_epi64(even, _mm512_mul_epi32(residual, c.residual_even));
    odd = _mm512_add_epi64(odd, _mm512_mul_epi32(_mm512_srli_epi64(residual, 32), c.residual_odd));
  }
  if (S == Shift::k32 || S == Shift::kDoubled) return _mm512_mask_shuffle_epi32(odd, 0x5555, even, _MM_PERM_DDBB);
  if (S == Shift::kUniform) {
    even = _mm512_sra_epi64(even, count);
    odd = _mm512_sra_epi64(odd, count);
  } else {
    even = _mm512_srav_epi64(even, c.shift_even);
    odd = _mm512_srav_epi64(odd, c.shift_odd);
  }
  return _mm512_mask_shuffle_epi32(even, 0xaaaa, odd, _MM_PERM_CCAA);
}

// 16 values of the residual, times 2^k; for kDoubled minus the zero point instead. at: the first, in elements. Masked
// loads of bytes are slow: only at the end of a row.
template <Shift S, Residual R>
ONNXQ_INLINE __m512i load_residual(const EpilogueBlock& e, ptrdiff_t at, bool whole, __mmask16 mask, __m512i k,
                                   const Constants& c) {
  if (R == Residual::kNone) return _mm512_setzero_si512();
  if (R == Residual::kS32) return _mm512_maskz_loadu_epi32(mask, static_cast<const int32_t*>(e.residual) + at);
  if (R == Residual::kS16)
    return _mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(mask, static_cast<const int16_t*>(e.residual) + at));
  const auto* bytes = static_cast<const uint8_t*>(e.residual) + at;
  const __m128i r =
      whole ? _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)) : _mm_maskz_loadu_epi8(mask, bytes);
  const __m512i wide = R == Residual::kU8 ? _mm512_cvtepu8_epi32(r) : _mm512_cvtepi8_epi32(r);
  return S == Shift::kDoubled ? _mm512_sub_epi32(wide, c.residual_zero_point) : _mm512_sllv_epi32(wide, k);
}

ONNXQ_INLINE __mmask16 mask16(int n) {
  return n >= 16 ? __mmask16{0xffff} : n <= 0 ? __mmask16{0} : static_cast<__mmask16>((1u << n) - 1);
}

}  // namespace
}  // namespace onnxq
