// The epilogue of the AVX-512 VNNI tier. Included by avx512vnni.cpp only.
#pragma once

#include "cpu/tiers/zmm/multiply_add.hpp"
#include "cpu/tiers/zmm/rescale.hpp"

namespace onnxq {
namespace {

ONNXQ_INLINE void store16(const EpilogueBlock& e, ptrdiff_t i, __m512i y, __mmask16 mask) {
  y = _mm512_min_epi32(_mm512_max_epi32(y, _mm512_set1_epi32(e.range.qmin)), _mm512_set1_epi32(e.range.qmax));
  if (e.range.type == IntType::S32)
    _mm512_mask_storeu_epi32(static_cast<int32_t*>(e.y) + i, mask, y);
  else if (e.range.type == IntType::S16)
    _mm512_mask_cvtepi32_storeu_epi16(static_cast<int16_t*>(e.y) + i, mask, y);
  else
    _mm512_mask_cvtepi32_storeu_epi8(static_cast<uint8_t*>(e.y) + i, mask, y);
}

// 16 channels at a time, any type, shift and residual.
template <Shift S, Residual R>
void epilogue_general(const EpilogueBlock& e) {
  const __m128i count = _mm_cvtsi32_si128(e.uniform_shift);
  const __m512i k = _mm512_set1_epi32(e.residual_shift);
  for (int n = 0; n < e.n; n += kVector) {
    const __mmask16 mask = mask16(e.n - n);
    const Constants c = constants_of<S, R>(e, n);
    for (int i = 0; i < e.m; i++) {
      const __m512i residual = load_residual<S, R>(e, i * e.residual_stride + n, false, mask, k, c);
      store16(e, i * e.y_stride + n, scale16<S, R>(e.acc + i * kPanel + n, residual, c, count), mask);
    }
  }
}

// To 16 or 32 bits, of sums that may exceed int32 or leave no room for the zero point: saturated from 64 bits.
template <Residual R>
void epilogue_saturating(const EpilogueBlock& e) {
  const __m512i low = _mm512_set1_epi64(e.range.qmin), high = _mm512_set1_epi64(e.range.qmax);
  const __m512i zero_point = _mm512_set1_epi64(e.range.zero_point), one = _mm512_set1_epi64(1);
  const __m512i k = _mm512_set1_epi32(e.residual_shift);
  const __m512i less = _mm512_set1_epi64(int64_t{e.residual_zero_point} * (int64_t{1} << e.residual_shift));
  for (int n = 0; n < e.n; n += kVector) {
    const __mmask16 mask = mask16(e.n - n);
    const __m512i multiplier = _mm512_loadu_si512(e.multiplier + n), shift = _mm512_loadu_si512(e.shift + n);
    const __m512i odd_multiplier = odd_lanes(multiplier);
    const __m512i shift_even = _mm512_and_si512(shift, _mm512_set1_epi64(0xff));
    const __m512i shift_odd = _mm512_srli_epi64(shift, 32);
    __m512i round_even = _mm512_sllv_epi64(one, _mm512_sub_epi64(shift_even, one));
    __m512i round_odd = _mm512_sllv_epi64(one, _mm512_sub_epi64(shift_odd, one));
    Constants c{};
    if (R != Residual::kNone) {
      c.residual_even = _mm512_loadu_si512(e.residual_multiplier + n);
      c.residual_odd = odd_lanes(c.residual_even);
      round_even = _mm512_sub_epi64(round_even, _mm512_mul_epi32(less, c.residual_even));
      round_odd = _mm512_sub_epi64(round_odd, _mm512_mul_epi32(less, c.residual_odd));
    }
    for (int i = 0; i < e.m; i++) {
      const int32_t* const acc = e.acc + i * kPanel + n;
      const __m512i residual =
          load_residual<Shift::kVector, R>(e, i * e.residual_stride + n, false, mask, k, c);
      __m512i even = _mm512_add_epi64(_mm512_mul_epi32(_mm512_load_si512(acc), multiplier), round_even);
      __m512i odd = _mm512_add_epi64(_mm512_mul_epi32(load_odd_lanes(acc), odd_multiplier), round_odd);
      if (R != Residual::kNone) {
        even = _mm512_add_epi64(even, _mm512_mul_epi32(residual, c.residual_even));
        odd = _mm512_add_epi64(odd, _mm512_mul_epi32(_mm512_srli_epi64(residual, 32), c.residual_odd));
      }
      even = _mm512_add_epi64(_mm512_srav_epi64(even, shift_even), zero_point);
      odd = _mm512_add_epi64(_mm512_srav_epi64(odd, shift_odd), zero_point);
      even = _mm512_min_epi64(_mm512_max_epi64(even, low), high);
      odd = _mm512_min_epi64(_mm512_max_epi64(odd, low), high);
      store16(e, i * e.y_stride + n, _mm512_mask_shuffle_epi32(even, 0xaaaa, odd, _MM_PERM_CCAA), mask);
    }
  }
}

void epilogue_beyond(const EpilogueBlock& e) {
  if (is_byte(e.range.type) || e.interleaved) return tiers::portable.epilogue(e);
  if (!e.residual) return epilogue_saturating<Residual::kNone>(e);
  switch (e.residual_type) {
    case IntType::U8: return epilogue_saturating<Residual::kU8>(e);
    case IntType::S8: return epilogue_saturating<Residual::kS8>(e);
    case IntType::S16: return epilogue_saturating<Residual::kS16>(e);
    default: return epilogue_saturating<Residual::kS32>(e);
  }
}

// To 8 bits, 64 bytes at a time: 4 rows of 16 channels, 2 of 32 or 1 of 64 (or of 48).
template <Shift S, Residual R, bool Signed, bool Interleaved, int V>
void epilogue_bytes(const EpilogueBlock& block) {
  const EpilogueBlock e = block;  // a copy, which stores of bytes cannot alias
  constexpr int kRows = V == 1 ? 4 : V == 2 ? 2 : 1;
  Constants c[V];
  __mmask16 masks[V];
#pragma GCC unroll 4
  for (int v = 0; v < V; v++) {
    c[v] = constants_of<S, R>(e, kVector * v);
    masks[v] = mask16(e.n - kVector * v);
  }
  const __m128i count = _mm_cvtsi32_si128(e.uniform_shift);
  const __m512i k = _mm512_set1_epi32(e.residual_shift);
  const __mmask64 mask = e.n >= 64 ? ~__mmask64{0} : (__mmask64{1} << e.n) - 1;
  const bool whole = e.n == kVector * V;
  const bool clips = e.range.qmax - e.range.qmin != 255;  // otherwise packing saturates already
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i low = _mm512_set1_epi8(static_cast<char>(e.range.qmin));
  const __m512i high = _mm512_set1_epi8(static_cast<char>(e.range.qmax));
  const __m512i halve = _mm512_set1_epi16(1 << 14);
  const __m512i zero_point = _mm512_set1_epi16(static_cast<int16_t>(e.range.zero_point));
  for (int i = 0; i < e.m; i += kRows) {
    __m512i y[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
#pragma GCC unroll 4
    for (int r = 0; r < kRows; r++) {
      const ptrdiff_t row = i + r < e.m ? i + r : e.m - 1;
#pragma GCC unroll 4
      for (int v = 0; v < V; v++) {
        const __m512i residual =
            load_residual<S, R>(e, row * e.residual_stride + kVector * v, whole, masks[v], k, c[v]);
        y[r * V + v] = scale16<S, R>(e.acc + row * kPanel + kVector * v, residual, c[v], count);
      }
    }
    __m512i words_low = _mm512_packs_epi32(y[0], y[1]), words_high = _mm512_packs_epi32(y[2], y[3]);
    if (S == Shift::kDoubled) {
      words_low = _mm512_add_epi16(_mm512_mulhrs_epi16(words_low, halve), zero_point);
      words_high = _mm512_add_epi16(_mm512_mulhrs_epi16(words_high, halve), zero_point);
    }
    __m512i bytes;
    if (Signed) {
      bytes = _mm512_packs_epi16(words_low, words_high);
      if (clips) bytes = _mm512_min_epi8(_mm512_max_epi8(bytes, low), high);
    } else {
      bytes = _mm512_packus_epi16(words_low, words_high);
      if (clips) bytes = _mm512_min_epu8(_mm512_max_epu8(bytes, low), high);
    }
    if (!Interleaved) bytes = _mm512_permutexvar_epi32(order, bytes);
    auto* to = static_cast<uint8_t*>(e.y) + i * e.y_stride;
    if (V == 1) {
      const __m128i rows[4] = {_mm512_castsi512_si128(bytes), _mm512_extracti32x4_epi32(bytes, 1),
                               _mm512_extracti32x4_epi32(bytes, 2), _mm512_extracti32x4_epi32(bytes, 3)};
#pragma GCC unroll 4
      for (int r = 0; r < 4; r++) {
        if (i + r >= e.m) break;
        if (whole)
          _mm_storeu_si128(reinterpret_cast<__m128i*>(to + r * e.y_stride), rows[r]);
        else
          _mm_mask_storeu_epi8(to + r * e.y_stride, static_cast<__mmask16>(mask), rows[r]);
      }
    } else if (V == 2) {
      const __m256i rows[2] = {_mm512_castsi512_si256(bytes), _mm512_extracti64x4_epi64(bytes, 1)};
#pragma GCC unroll 2
      for (int r = 0; r < 2; r++) {
        if (i + r >= e.m) break;
        if (whole)
          _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + r * e.y_stride), rows[r]);
        else
          _mm256_mask_storeu_epi8(to + r * e.y_stride, static_cast<__mmask32>(mask), rows[r]);
      }
    } else if (V == 4 && whole) {
      _mm512_storeu_si512(to, bytes);
    } else {
      _mm512_mask_storeu_epi8(to, mask, bytes);
    }
  }
}

// The interleaved epilogue of at most 32 channels: the lower halves of the registers.
template <Shift S, bool Signed>
void epilogue_half(const EpilogueBlock& e) {
  const auto low_half = [](const int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); };
  const __m256i one = _mm256_set1_epi64x(1), zero_point = _mm256_set1_epi64x(e.range.zero_point);
  __m256i multiplier[4], shift_even[4], shift_odd[4], round_even[4], round_odd[4];
  const auto rounding = [&](__m256i shift) {
    return _mm256_add_epi64(_mm256_sllv_epi64(one, _mm256_sub_epi64(shift, one)), _mm256_sllv_epi64(zero_point, shift));
  };
#pragma GCC unroll 4
  for (int v = 0; v < 4; v++) {
    multiplier[v] = low_half(e.multiplier + kVector * v);
    if (S == Shift::kVector) {
      const __m256i shift = low_half(e.shift + kVector * v);
      shift_even[v] = _mm256_and_si256(shift, _mm256_set1_epi64x(0xff));
      shift_odd[v] = _mm256_srli_epi64(shift, 32);
    } else {
      shift_even[v] = shift_odd[v] = _mm256_set1_epi64x(e.uniform_shift);
    }
    round_even[v] = rounding(shift_even[v]);
    round_odd[v] = rounding(shift_odd[v]);
  }
  const __mmask32 mask = e.n >= 32 ? ~__mmask32{0} : (__mmask32{1} << e.n) - 1;
  const __m256i low = _mm256_set1_epi8(static_cast<char>(e.range.qmin));
  const __m256i high = _mm256_set1_epi8(static_cast<char>(e.range.qmax));
  for (int i = 0; i < e.m; i++) {
    __m256i y[4];
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) {
      const __m256i acc = low_half(e.acc + i * kPanel + kVector * v);
      __m256i even = _mm256_add_epi64(_mm256_mul_epi32(acc, multiplier[v]), round_even[v]);
      __m256i odd = _mm256_add_epi64(_mm256_mul_epi32(_mm256_srli_epi64(acc, 32), _mm256_srli_epi64(multiplier[v], 32)),
                                     round_odd[v]);
      if (S == Shift::k32) {
        y[v] = _mm256_mask_shuffle_epi32(odd, 0x55, even, _MM_PERM_DDBB);
      } else {
        even = _mm256_srav_epi64(even, shift_even[v]);
        odd = _mm256_srav_epi64(odd, shift_odd[v]);
        y[v] = _mm256_mask_shuffle_epi32(even, 0xaa, odd, _MM_PERM_CCAA);
      }
    }
    const __m256i words_low = _mm256_packs_epi32(y[0], y[1]), words_high = _mm256_packs_epi32(y[2], y[3]);
    __m256i bytes;
    if (Signed)
      bytes = _mm256_min_epi8(_mm256_max_epi8(_mm256_packs_epi16(words_low, words_high), low), high);
    else
      bytes = _mm256_min_epu8(_mm256_max_epu8(_mm256_packus_epi16(words_low, words_high), low), high);
    _mm256_mask_storeu_epi8(static_cast<uint8_t*>(e.y) + i * e.y_stride, mask, bytes);
  }
}

void epilogue_identity(const EpilogueBlock& e) {
  for (int n = 0; n < e.n; n += kVector) {
    const __mmask16 mask = mask16(e.n - n);
    for (int i = 0; i < e.m; i++)
      _mm512_mask_storeu_epi32(static_cast<int32_t*>(e.y) + i * e.y_stride + n, mask,
                               _mm512_load_si512(e.acc + i * kPanel + n));
  }
}

template <Shift S, Residual R, bool Signed>
void epilogue_vectors(const EpilogueBlock& e) {
  switch ((e.n + kVector - 1) / kVector) {
    case 1: return epilogue_bytes<S, R, Signed, false, 1>(e);
    case 2: return epilogue_bytes<S, R, Signed, false, 2>(e);
    case 3: return epilogue_bytes<S, R, Signed, false, 3>(e);
    default: return epilogue_bytes<S, R, Signed, false, 4>(e);
  }
}

template <Shift S, Residual R>
void epilogue_residual(const EpilogueBlock& e) {
  switch (e.range.type) {
    case IntType::U8: return epilogue_vectors<S, R, false>(e);
    case IntType::S8: return epilogue_vectors<S, R, true>(e);
    default: return epilogue_general<undoubled(S), R>(e);
  }
}

template <Shift S>
void epilogue_interleaved(const EpilogueBlock& e) {
  const bool is_signed = e.range.type == IntType::S8;
  if (e.n <= 32) return is_signed ? epilogue_half<undoubled(S), true>(e) : epilogue_half<undoubled(S), false>(e);
  return is_signed ? epilogue_bytes<S, Residual::kNone, true, true, 4>(e)
                   : epilogue_bytes<S, Residual::kNone, false, true, 4>(e);
}

template <Shift S>
void epilogue_shift(const EpilogueBlock& e) {
  if (e.interleaved) return epilogue_interleaved<S>(e);
  if (!e.residual) return epilogue_residual<S, Residual::kNone>(e);
  switch (e.residual_type) {
    case IntType::U8: return epilogue_residual<S, Residual::kU8>(e);
    case IntType::S8: return epilogue_residual<S, Residual::kS8>(e);
    case IntType::S16: return epilogue_residual<S, Residual::kS16>(e);
    default: return epilogue_residual<S, Residual::kS32>(e);
  }
}

void epilogue(const EpilogueBlock& e) {
  if (e.identity && !e.interleaved) return epilogue_identity(e);
  // Sums that may exceed int32 before they saturate or leave no room for the zero point, and interleaved channels to
  // 16 or 32 bits.
  if (!e.narrow || (e.interleaved && !is_byte(e.range.type))) return epilogue_beyond(e);
  if (e.spare_bit && is_byte(e.range.type)) return epilogue_shift<Shift::kDoubled>(e);
  if (e.uniform_shift == 32) return epilogue_shift<Shift::k32>(e);
  if (e.uniform_shift) return epilogue_shift<Shift::kUniform>(e);
  return epilogue_shift<Shift::kVector>(e);
}

}  // namespace
}  // namespace onnxq
