// The epilogue of the tiers with 256-bit registers; see gemm.hpp.
//
// vpmuldq multiplies the even int32 lanes into int64; the odd ones are shifted down first. There is no 64-bit
// arithmetic shift: 2^63 is added to make the sum non-negative, and 2^(63−c) is subtracted after the logical shift,
// from the lower 32 bits, which are all that is kept. A shift of 32 takes no instruction at all: the high halves are
// taken.
//
// The zero points are part of the constants: that of y where `narrow` guarantees the room, that of the residual always,
// as numbers modulo 2^64, which the true sum fits.
//
// Where multipliers have a spare bit they are doubled, and one bit more is rounded in 16 bits, as zmm/rescale.hpp
// explains: that is one vpmulhrsw for 16 channels instead of an addition for every 4.
#pragma once

#include "cpu/tiers/ymm/gemm.hpp"

namespace onnxq {
namespace {

enum class Shift { k32, kDoubled, kVector };
constexpr Shift undoubled(Shift s) { return s == Shift::kDoubled ? Shift::k32 : s; }
enum class Residual { kNone, kU8, kS8, kS16, kS32 };

struct Scale8 {       // of 8 channels
  __m256i even, odd;  // multipliers
  __m256i round_even, round_odd;
  __m256i shift_even, shift_odd;
  __m256i offset;
  __m256i residual_even, residual_odd;
  __m256i residual_zero_point;  // where it is not part of the rounding
};

// Multiplications and shifts share two ports; shuffles have others.
ONNXQ_INLINE __m256i odd_lanes(__m256i v) { return _mm256_shuffle_epi32(v, 0xf5); }

// The odd lanes of 8 values in memory: on a load port.
ONNXQ_INLINE __m256i load_odd_lanes(const int32_t* p) {
  __m256i v;
  __asm__("vmovshdup %1, %0" : "=x"(v) : "m"(*reinterpret_cast<const __m256i*>(p)));
  return v;
}

template <Shift S, Residual R>
ONNXQ_INLINE Scale8 scale_of(const EpilogueBlock& e, int n) {
  Scale8 s;
  s.even = load256(e.multiplier + n);
  if (S == Shift::kDoubled) s.even = _mm256_slli_epi32(s.even, 1);
  s.odd = odd_lanes(s.even);
  s.round_even = s.round_odd = s.shift_even = s.shift_odd = s.offset = _mm256_setzero_si256();
  if (S == Shift::k32) {
    s.round_even = s.round_odd = _mm256_set1_epi64x(
        static_cast<int64_t>((uint64_t{1} << 31) + (static_cast<uint64_t>(int64_t{e.range.zero_point}) << 32)));
  } else if (S == Shift::kVector) {
    const __m256i one = _mm256_set1_epi64x(1), top = _mm256_set1_epi64x(INT64_MIN);
    const __m256i shift = load256(e.shift + n);
    s.shift_even = _mm256_and_si256(shift, _mm256_set1_epi64x(0xff));
    s.shift_odd = _mm256_srli_epi64(shift, 32);
    s.round_even = _mm256_add_epi64(_mm256_sllv_epi64(one, _mm256_sub_epi64(s.shift_even, one)), top);
    s.round_odd = _mm256_add_epi64(_mm256_sllv_epi64(one, _mm256_sub_epi64(s.shift_odd, one)), top);
    const __m256i top_even = _mm256_srlv_epi64(top, s.shift_even), top_odd = _mm256_srlv_epi64(top, s.shift_odd);
    s.offset = _mm256_sub_epi32(_mm256_set1_epi32(e.range.zero_point),
                                _mm256_blend_epi32(top_even, _mm256_slli_epi64(top_odd, 32), 0xaa));
  }
  s.residual_even = s.residual_odd = s.residual_zero_point = _mm256_setzero_si256();
  if (R != Residual::kNone && S == Shift::kDoubled) {
    const __m128i by = _mm_cvtsi32_si128(e.residual_shift + 1);
    s.residual_even = _mm256_sll_epi32(load256(e.residual_multiplier + n), by);
    s.residual_odd = odd_lanes(s.residual_even);
    s.residual_zero_point = _mm256_set1_epi32(e.residual_zero_point);
  } else if (R != Residual::kNone) {
    s.residual_even = load256(e.residual_multiplier + n);
    s.residual_odd = odd_lanes(s.residual_even);
    const __m256i zero_point = _mm256_set1_epi64x(int64_t{e.residual_zero_point} * (int64_t{1} << e.residual_shift));
    s.round_even = _mm256_sub_epi64(s.round_even, _mm256_mul_epi32(zero_point, s.residual_even));
    s.round_odd = _mm256_sub_epi64(s.round_odd, _mm256_mul_epi32(zero_point, s.residual_odd));
  }
  return s;
}

// The scaled int32 of 8 channels, zero point included; for kDoubled twice that, without it and not rounded.
template <Shift S, Residual R>
ONNXQ_INLINE __m256i scale8(const int32_t* acc, __m256i residual, const Scale8& s) {
  __m256i even = _mm256_mul_epi32(load256(acc), s.even);
  __m256i odd = _mm256_mul_epi32(load_odd_lanes(acc), s.odd);
  if (S != Shift::kDoubled) {
    even = _mm256_add_epi64(even, s.round_even);
    odd = _mm256_add_epi64(odd, s.round_odd);
  }
  if (R != Residual::kNone) {
    even = _mm256_add_epi64(even, _mm256_mul_epi32(residual, s.residual_even));
    odd = _mm256_add_epi64(odd, _mm256_mul_epi32(odd_lanes(residual), s.residual_odd));
  }
  if (S != Shift::kVector) return _mm256_blend_epi32(odd_lanes(even), odd, 0xaa);
  even = _mm256_srlv_epi64(even, s.shift_even);
  odd = _mm256_srlv_epi64(odd, s.shift_odd);
  return _mm256_add_epi32(_mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa), s.offset);
}

// `count` bytes, the others zero; memory beyond them is not read.
ONNXQ_INLINE __m128i load_bytes(const void* from, int count) {
  if (count >= 16) return _mm_loadu_si128(static_cast<const __m128i*>(from));
  const auto* p = static_cast<const uint8_t*>(from);
  uint64_t halves[2] = {0, 0}, *half = halves;
  if (count >= 8) {
    __builtin_memcpy(half++, p, 8);
    p += 8;
    count -= 8;
  }
  for (int i = 0; i < count; i++) *half |= uint64_t{p[i]} << (8 * i);
  return _mm_set_epi64x(static_cast<int64_t>(halves[1]), static_cast<int64_t>(halves[0]));
}

ONNXQ_INLINE void store_bytes(void* to, __m128i bytes, int count) {
  if (count >= 16) return _mm_storeu_si128(static_cast<__m128i*>(to), bytes);
  auto* p = static_cast<uint8_t*>(to);
  if (count >= 8) {
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), bytes);
    bytes = _mm_unpackhi_epi64(bytes, bytes);
    p += 8;
    count -= 8;
  }
  for (auto rest = static_cast<uint64_t>(_mm_cvtsi128_si64(bytes)); count > 0; count--, rest >>= 8)
    *p++ = static_cast<uint8_t>(rest);
}

// Ones in the first `count` int32 lanes.
ONNXQ_INLINE __m256i first_lanes(int count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

// 8 values of the residual, times 2^k; for kDoubled minus the zero point instead.
template <Shift S, Residual R>
ONNXQ_INLINE __m256i load_residual(const EpilogueBlock& e, ptrdiff_t i, int count, const Scale8& s) {
  if (R == Residual::kNone || count <= 0) return _mm256_setzero_si256();
  if (R == Residual::kS32)
    return _mm256_maskload_epi32(static_cast<const int32_t*>(e.residual) + i, first_lanes(count));
  if (R == Residual::kS16)
    return _mm256_cvtepi16_epi32(load_bytes(static_cast<const int16_t*>(e.residual) + i, count < 8 ? 2 * count : 16));
  const auto* const from = static_cast<const uint8_t*>(e.residual) + i;
  const __m128i bytes = count >= 8 ? _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)) : load_bytes(from, count);
  const __m256i r = R == Residual::kU8 ? _mm256_cvtepu8_epi32(bytes) : _mm256_cvtepi8_epi32(bytes);
  if (S == Shift::kDoubled) return _mm256_sub_epi32(r, s.residual_zero_point);
  return _mm256_sll_epi32(r, _mm_cvtsi32_si128(e.residual_shift));
}

// t to (t + 1) >> 1, plus the zero point, in 16 bits.
ONNXQ_INLINE __m256i halve(__m256i words, __m256i zero_point) {
  return _mm256_add_epi16(_mm256_mulhrs_epi16(words, _mm256_set1_epi16(1 << 14)), zero_point);
}

// 16·V channels from channel n on, to 8 bits.
template <Shift S, Residual R, bool Signed, int V>
void epilogue_bytes(const EpilogueBlock& block, int n) {
  const EpilogueBlock e = block;  // a copy, which stores of bytes cannot alias
  Scale8 s[2 * V];
  ONNXQ_UNROLL
  for (int v = 0; v < 2 * V; v++) s[v] = scale_of<S, R>(e, n + kLane8 * v);
  const __m256i low = _mm256_set1_epi8(static_cast<char>(e.range.qmin));
  const __m256i high = _mm256_set1_epi8(static_cast<char>(e.range.qmax));
  const __m256i zero_point = _mm256_set1_epi16(static_cast<int16_t>(e.range.zero_point));
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  const bool clips = e.range.qmax - e.range.qmin != 255;  // otherwise packing saturates already
  const int count = e.n - n;
  for (int i = 0; i < e.m; i++) {
    __m256i y[4];
    y[2] = y[3] = _mm256_setzero_si256();
    ONNXQ_UNROLL
    for (int v = 0; v < 2 * V; v++) {
      const ptrdiff_t at = i * e.residual_stride + n + kLane8 * v;
      const __m256i residual = load_residual<S, R>(e, at, count - kLane8 * v, s[v]);
      y[v] = scale8<S, R>(e.acc + i * kPanel + n + kLane8 * v, residual, s[v]);
    }
    __m256i words_low = _mm256_packs_epi32(y[0], y[1]), words_high = _mm256_packs_epi32(y[2], y[3]);
    if (S == Shift::kDoubled) {
      words_low = halve(words_low, zero_point);
      words_high = halve(words_high, zero_point);
    }
    __m256i bytes;
    if (Signed) {
      bytes = _mm256_packs_epi16(words_low, words_high);
      if (clips) bytes = _mm256_min_epi8(_mm256_max_epi8(bytes, low), high);
    } else {
      bytes = _mm256_packus_epi16(words_low, words_high);
      if (clips) bytes = _mm256_min_epu8(_mm256_max_epu8(bytes, low), high);
    }
    bytes = _mm256_permutevar8x32_epi32(bytes, order);
    auto* const y8 = static_cast<uint8_t*>(e.y) + i * e.y_stride + n;
    if (V == 2 && count >= 32) {
      store256(y8, bytes);
    } else {
      store_bytes(y8, _mm256_castsi256_si128(bytes), count);
      if (V == 2) store_bytes(y8 + 16, _mm256_extracti128_si256(bytes, 1), count - 16);
    }
  }
}

// 8 channels from channel n on, to 16 or 32 bits.
ONNXQ_INLINE void store_words(const EpilogueBlock& e, int i, int n, __m256i y, __m256i mask) {
  const ptrdiff_t at = i * e.y_stride + n;
  if (e.range.type == IntType::S32)
    return _mm256_maskstore_epi32(static_cast<int32_t*>(e.y) + at, mask, y);
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(y), _mm256_extracti128_si256(y, 1));
  store_bytes(static_cast<int16_t*>(e.y) + at, words, e.n - n < kLane8 ? 2 * (e.n - n) : 16);
}

template <Shift S, Residual R>
void epilogue_words(const EpilogueBlock& e) {
  const __m256i low = _mm256_set1_epi32(e.range.qmin), high = _mm256_set1_epi32(e.range.qmax);
  for (int n = 0; n < e.n; n += kLane8) {
    const Scale8 s = scale_of<S, R>(e, n);
    const __m256i mask = first_lanes(e.n - n);
    for (int i = 0; i < e.m; i++) {
      const __m256i residual = load_residual<S, R>(e, i * e.residual_stride + n, e.n - n, s);
      const __m256i y = scale8<S, R>(e.acc + i * kPanel + n, residual, s);
      store_words(e, i, n, _mm256_min_epi32(_mm256_max_epi32(y, low), high), mask);
    }
  }
}

ONNXQ_INLINE __m256i clamp64(__m256i v, __m256i low, __m256i high) {
  v = _mm256_blendv_epi8(v, low, _mm256_cmpgt_epi64(low, v));
  return _mm256_blendv_epi8(v, high, _mm256_cmpgt_epi64(v, high));
}

// To 16 or 32 bits, of sums that may exceed int32: saturated from 64 bits.
template <Residual R>
void epilogue_saturating(const EpilogueBlock& e) {
  const __m256i low = _mm256_set1_epi64x(e.range.qmin), high = _mm256_set1_epi64x(e.range.qmax);
  const __m256i zero_point = _mm256_set1_epi64x(e.range.zero_point), top = _mm256_set1_epi64x(INT64_MIN);
  for (int n = 0; n < e.n; n += kLane8) {
    const Scale8 s = scale_of<Shift::kVector, R>(e, n);
    const __m256i less_even = _mm256_sub_epi64(zero_point, _mm256_srlv_epi64(top, s.shift_even));
    const __m256i less_odd = _mm256_sub_epi64(zero_point, _mm256_srlv_epi64(top, s.shift_odd));
    const __m256i mask = first_lanes(e.n - n);
    for (int i = 0; i < e.m; i++) {
      const __m256i acc = load256(e.acc + i * kPanel + n);
      const __m256i residual = load_residual<Shift::kVector, R>(e, i * e.residual_stride + n, e.n - n, s);
      __m256i even = _mm256_add_epi64(_mm256_mul_epi32(acc, s.even), s.round_even);
      __m256i odd = _mm256_add_epi64(_mm256_mul_epi32(odd_lanes(acc), s.odd), s.round_odd);
      if (R != Residual::kNone) {
        even = _mm256_add_epi64(even, _mm256_mul_epi32(residual, s.residual_even));
        odd = _mm256_add_epi64(odd, _mm256_mul_epi32(odd_lanes(residual), s.residual_odd));
      }
      even = clamp64(_mm256_add_epi64(_mm256_srlv_epi64(even, s.shift_even), less_even), low, high);
      odd = clamp64(_mm256_add_epi64(_mm256_srlv_epi64(odd, s.shift_odd), less_odd), low, high);
      store_words(e, i, n, _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa), mask);
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

void epilogue_identity(const EpilogueBlock& e) {
  for (int n = 0; n < e.n; n += kLane8) {
    const __m256i mask = first_lanes(e.n - n);
    for (int i = 0; i < e.m; i++)
      _mm256_maskstore_epi32(static_cast<int32_t*>(e.y) + i * e.y_stride + n, mask, load256(e.acc + i * kPanel + n));
  }
}

template <Shift S, Residual R, bool Signed>
void epilogue_chunks(const EpilogueBlock& e) {
  int n = 0;
  for (; e.n - n > kVector; n += 2 * kVector) epilogue_bytes<S, R, Signed, 2>(e, n);
  if (n < e.n) epilogue_bytes<S, R, Signed, 1>(e, n);
}

template <Shift S, Residual R>
void epilogue_types(const EpilogueBlock& e) {
  switch (e.range.type) {
    case IntType::U8: return epilogue_chunks<S, R, false>(e);
    case IntType::S8: return epilogue_chunks<S, R, true>(e);
    default: return epilogue_words<undoubled(S), R>(e);
  }
}

template <Shift S>
void epilogue_residuals(const EpilogueBlock& e) {
  if (!e.residual) return epilogue_types<S, Residual::kNone>(e);
  switch (e.residual_type) {
    case IntType::U8: return epilogue_types<S, Residual::kU8>(e);
    case IntType::S8: return epilogue_types<S, Residual::kS8>(e);
    case IntType::S16: return epilogue_types<S, Residual::kS16>(e);
    default: return epilogue_types<S, Residual::kS32>(e);
  }
}

void epilogue(const EpilogueBlock& e) {
  if (e.identity) return epilogue_identity(e);
  if (!e.narrow) return epilogue_beyond(e);  // sums that may exceed int32 before they saturate
  if (e.spare_bit && is_byte(e.range.type)) return epilogue_residuals<Shift::kDoubled>(e);
  return e.uniform_shift == 32 ? epilogue_residuals<Shift::k32>(e) : epilogue_residuals<Shift::kVector>(e);
}

}  // namespace
}  // namespace onnxq
