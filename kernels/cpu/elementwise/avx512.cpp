// The inner loops with AVX-512 (F, BW, DQ, VL, VNNI).
//
// Rescales in 64 bits: vpmuldq multiplies the even int32 lanes; the odd ones are moved down by a shuffle first. Both
// halves are shifted and merged again.
#include <immintrin.h>

#include "cpu/common/inline.hpp"
#include "cpu/elementwise/plain.hpp"
#include "cpu/elementwise/tables.hpp"
#include "cpu/elementwise/ymm_channels_last.hpp"
#include "cpu/tiers/features.hpp"

namespace onnxq {
namespace {

constexpr int kLanes = 16, kBytes = 64;

ONNXQ_INLINE __mmask16 mask16(int64_t n) { return n >= 16 ? __mmask16{0xffff} : static_cast<__mmask16>((1u << n) - 1); }
ONNXQ_INLINE __mmask64 mask64(int64_t n) { return n >= 64 ? ~__mmask64{0} : (__mmask64{1} << n) - 1; }
ONNXQ_INLINE __m512i odd_lanes(__m512i v) { return _mm512_shuffle_epi32(v, _MM_PERM_DDBB); }

template <IntType T>
ONNXQ_INLINE __m512i load16(const void* data, int64_t i, __mmask16 mask) {
  if (T == IntType::S32) return _mm512_maskz_loadu_epi32(mask, static_cast<const int32_t*>(data) + i);
  if (T == IntType::S16)
    return _mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(mask, static_cast<const int16_t*>(data) + i));
  const __m128i bytes = _mm_maskz_loadu_epi8(mask, static_cast<const uint8_t*>(data) + i);
  return T == IntType::U8 ? _mm512_cvtepu8_epi32(bytes) : _mm512_cvtepi8_epi32(bytes);
}

struct Constants {
  __m512i a_even, a_odd, b_even, b_odd;  // multipliers of the even and of the odd lanes
  __m512i offset_even, offset_odd, shift_even, shift_odd;
  __m512i zero_point, low, high;  // low and high of the shifted sum, in 64 bits
};

ONNXQ_INLINE Constants uniform_constants(int32_t a, int32_t b, int64_t offset, int32_t shift,
                                         const OutputRange& range) {
  Constants c;
  c.a_even = c.a_odd = _mm512_set1_epi32(a);
  c.b_even = c.b_odd = _mm512_set1_epi32(b);
  c.offset_even = c.offset_odd = _mm512_set1_epi64(offset);
  c.shift_even = c.shift_odd = _mm512_set1_epi64(shift);
  c.zero_point = _mm512_set1_epi32(range.zero_point);
  c.low = _mm512_set1_epi64(int64_t{range.qmin} - range.zero_point);
  c.high = _mm512_set1_epi64(int64_t{range.qmax} - range.zero_point);
  return c;
}

template <bool Two>
ONNXQ_INLINE void load_constants(const SumRow& r, int64_t i, __mmask16 mask, Constants& c) {
  c.a_even = _mm512_maskz_loadu_epi32(mask, r.a_multiplier + i);
  c.a_odd = odd_lanes(c.a_even);
  if (Two) {
    c.b_even = _mm512_maskz_loadu_epi32(mask, r.b_multiplier + i);
    c.b_odd = odd_lanes(c.b_even);
  }
  const __m512i shift = _mm512_maskz_loadu_epi32(mask, r.shift + i);
  c.shift_even = _mm512_and_si512(shift, _mm512_set1_epi64(0xff));
  c.shift_odd = _mm512_srli_epi64(shift, 32);
  const __m512i first = _mm512_maskz_loadu_epi64(static_cast<__mmask8>(mask), r.offset + i);
  const __m512i second = _mm512_maskz_loadu_epi64(static_cast<__mmask8>(mask >> 8), r.offset + i + 8);
  c.offset_even = _mm512_permutex2var_epi64(first, _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14), second);
  c.offset_odd = _mm512_permutex2var_epi64(first, _mm512_setr_epi64(1, 3, 5, 7, 9, 11, 13, 15), second);
}

// The shifted sum with the zero point, saturated only where the sum may exceed int32.
template <bool Two, bool Narrow>
ONNXQ_INLINE __m512i scaled(__m512i a, __m512i b, const Constants& c) {
  __m512i even = _mm512_add_epi64(_mm512_mul_epi32(a, c.a_even), c.offset_even);
  __m512i odd = _mm512_add_epi64(_mm512_mul_epi32(odd_lanes(a), c.a_odd), c.offset_odd);
  if (Two) {
    even = _mm512_add_epi64(even, _mm512_mul_epi32(b, c.b_even));
    odd = _mm512_add_epi64(odd, _mm512_mul_epi32(odd_lanes(b), c.b_odd));
  }
  even = _mm512_srav_epi64(even, c.shift_even);
  odd = _mm512_srav_epi64(odd, c.shift_odd);
  if (!Narrow) {
    even = _mm512_min_epi64(_mm512_max_epi64(even, c.low), c.high);
    odd = _mm512_min_epi64(_mm512_max_epi64(odd, c.low), c.high);
  }
  return _mm512_add_epi32(_mm512_mask_shuffle_epi32(even, 0xaaaa, odd, _MM_PERM_CCAA), c.zero_point);
}

ONNXQ_INLINE void store16(__m512i y, const OutputRange& range, void* to, int64_t i, __mmask16 mask) {
  y = _mm512_min_epi32(_mm512_max_epi32(y, _mm512_set1_epi32(range.qmin)), _mm512_set1_epi32(range.qmax));
  if (range.type == IntType::S32)
    _mm512_mask_storeu_epi32(static_cast<int32_t*>(to) + i, mask, y);
  else if (range.type == IntType::S16)
    _mm256_mask_storeu_epi16(static_cast<int16_t*>(to) + i, mask, _mm512_cvtepi32_epi16(y));
  else
    _mm_mask_storeu_epi8(static_cast<uint8_t*>(to) + i, mask, _mm512_cvtepi32_epi8(y));
}

// 64 values to bytes. ordered: y[v] holds values in the order of unpacking within 128-bit lanes, not 16 consecutive
// ones.
ONNXQ_INLINE __m512i saturated_bytes(const __m512i y[4], const OutputRange& range, bool ordered) {
  const __m512i low = _mm512_set1_epi8(static_cast<char>(range.qmin));
  const __m512i high = _mm512_set1_epi8(static_cast<char>(range.qmax));
  const __m512i first = _mm512_packs_epi32(y[0], y[1]), second = _mm512_packs_epi32(y[2], y[3]);
  __m512i bytes;
  if (range.type == IntType::S8) {
    bytes = _mm512_packs_epi16(first, second);
    bytes = _mm512_min_epi8(_mm512_max_epi8(bytes, low), high);
  } else {
    bytes = _mm512_packus_epi16(first, second);
    bytes = _mm512_min_epu8(_mm512_max_epu8(bytes, low), high);
  }
  if (ordered) return bytes;
  return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), bytes);
}

// Stores value(i, mask) for 16 positions at a time.
template <class F>
ONNXQ_INLINE void each16(const OutputRange& range, void* y, int64_t n, const F& value) {
  int64_t i = 0;
  if (is_byte(range.type))
    for (; i + kBytes <= n; i += kBytes) {
      __m512i v[4];
#pragma GCC unroll 4
      for (int k = 0; k < 4; k++) v[k] = value(i + k * kLanes, __mmask16{0xffff});
      _mm512_storeu_si512(static_cast<uint8_t*>(y) + i, saturated_bytes(v, range, false));
    }
  for (; i < n; i += kLanes) {
    const __mmask16 mask = mask16(n - i);
    store16(value(i, mask), range, y, i, mask);
  }
}

template <bool Two, bool Narrow, bool Uniform, IntType A, IntType B>
void sum_row(const SumRow& r) {
  Constants c = uniform_constants(*r.a_multiplier, Two ? *r.b_multiplier : 0, *r.offset, *r.shift, r.range);
  each16(r.range, r.y, r.n, [&](int64_t i, __mmask16 mask) __attribute__((always_inline)) {
    if (!Uniform) load_constants<Two>(r, i, mask, c);
    const __m512i b = Two ? load16<B>(r.b, i, mask) : _mm512_setzero_si512();
    return scaled<Two, Narrow>(load16<A>(r.a, i, mask), b, c);
  });
}

template <bool Two, IntType A, IntType B>
void sum_types(const SumRow& r) {
  if (r.uniform) return r.narrow ? sum_row<Two, true, true, A, B>(r) : sum_row<Two, false, true, A, B>(r);
  return r.narrow ? sum_row<Two, true, false, A, B>(r) : sum_row<Two, false, false, A, B>(r);
}

template <IntType A>
void sum_second(const SumRow& r) {
  if (!r.b) return sum_types<false, A, IntType::U8>(r);
  switch (r.b_type) {
    case IntType::U8: return sum_types<true, A, IntType::U8>(r);
    case IntType::S8: return sum_types<true, A, IntType::S8>(r);
    case IntType::S16: return sum_types<true, A, IntType::S16>(r);
    default: return sum_types<true, A, IntType::S32>(r);
  }
}

void sum(const SumRow& r) {
  switch (r.a_type) {
    case IntType::U8: return sum_second<IntType::U8>(r);
    case IntType::S8: return sum_second<IntType::S8>(r);
    case IntType::S16: return sum_second<IntType::S16>(r);
    default: return sum_second<IntType::S32>(r);
  }
}

// A lane holds a and b as 16-bit halves: one instruction multiplies and adds both. Signed bytes are read as x + 128,
// and 128 times the multiplier is subtracted.
void byte_sum(const ByteSum& s, const void* a, const void* b, void* y, int64_t n) {
  const auto pair = [](int16_t first, int16_t second) {
    return _mm512_set1_epi32((int32_t{second} * 65536) | static_cast<uint16_t>(first));
  };
  const auto raised = [&](int32_t offset, int16_t p, int16_t q) {
    return _mm512_set1_epi32(offset - (s.a_signed ? 128 * p : 0) - (s.b_signed ? 128 * q : 0));
  };
  const __m512i high = pair(s.a_high, s.b_high), low = pair(s.a_low, s.b_low);
  const __m512i high_offset = raised(s.high, s.a_high, s.b_high), low_offset = raised(s.low, s.a_low, s.b_low);
  const __m512i flip_a = _mm512_set1_epi8(static_cast<char>(s.a_signed ? 0x80 : 0));
  const __m512i flip_b = _mm512_set1_epi8(static_cast<char>(s.b_signed ? 0x80 : 0));
  const __m512i zero = _mm512_setzero_si512(), zero_point = _mm512_set1_epi32(s.range.zero_point);
  const __m128i shift = _mm_cvtsi32_si128(s.shift);
  const auto scaled_pairs = [&](__m512i pairs) __attribute__((always_inline)) {
    const __m512i h = _mm512_dpwssd_epi32(high_offset, pairs, high);
    const __m512i l = _mm512_dpwssd_epi32(low_offset, pairs, low);
    const __m512i sum = _mm512_add_epi32(h, _mm512_srai_epi32(l, 16));
    return _mm512_add_epi32(_mm512_sra_epi32(sum, shift), zero_point);
  };
  const auto bytes_of = [&](__m512i p, __m512i q) __attribute__((always_inline)) {
    p = _mm512_xor_si512(p, flip_a);
    q = _mm512_xor_si512(q, flip_b);
    const __m512i first = _mm512_unpacklo_epi8(p, q), second = _mm512_unpackhi_epi8(p, q);
    const __m512i v[4] = {
        scaled_pairs(_mm512_unpacklo_epi8(first, zero)), scaled_pairs(_mm512_unpackhi_epi8(first, zero)),
        scaled_pairs(_mm512_unpacklo_epi8(second, zero)), scaled_pairs(_mm512_unpackhi_epi8(second, zero))};
    return saturated_bytes(v, s.range, true);
  };
  const auto* const from_a = static_cast<const uint8_t*>(a);
  const auto* const from_b = static_cast<const uint8_t*>(b);
  auto* const to = static_cast<uint8_t*>(y);
  int64_t i = 0;
  for (; i + kBytes <= n; i += kBytes)
    _mm512_storeu_si512(to + i, bytes_of(_mm512_loadu_si512(from_a + i), _mm512_loadu_si512(from_b + i)));
  if (i < n) {
    const __mmask64 mask = mask64(n - i);
    _mm512_mask_storeu_epi8(
        to + i, mask, bytes_of(_mm512_maskz_loadu_epi8(mask, from_a + i), _mm512_maskz_loadu_epi8(mask, from_b + i)));
  }
}

template <bool Narrow, IntType A, IntType B>
void product_row(const ProductRow& r) {
  const Constants c = uniform_constants(r.multiplier, 0, int64_t{1} << (r.shift - 1), r.shift, r.range);
  const __m512i a_zero_point = _mm512_set1_epi32(r.a_zero_point), b_zero_point = _mm512_set1_epi32(r.b_zero_point);
  each16(r.range, r.y, r.n, [&](int64_t i, __mmask16 mask) __attribute__((always_inline)) {
    const __m512i a = _mm512_sub_epi32(load16<A>(r.a, i, mask), a_zero_point);
    const __m512i b = _mm512_sub_epi32(load16<B>(r.b, i, mask), b_zero_point);
    // Both fit 16 bits; the upper halves of a are cleared so that they contribute nothing.
    const __m512i product = _mm512_madd_epi16(_mm512_and_si512(a, _mm512_set1_epi32(0xffff)), b);
    return scaled<false, Narrow>(product, product, c);
  });
}

template <bool Narrow, IntType A>
void product_second(const ProductRow& r) {
  return r.b_type == IntType::U8 ? product_row<Narrow, A, IntType::U8>(r) : product_row<Narrow, A, IntType::S8>(r);
}

void product(const ProductRow& r) {
  if (r.a_type == IntType::U8)
    return r.narrow ? product_second<true, IntType::U8>(r) : product_second<false, IntType::U8>(r);
  return r.narrow ? product_second<true, IntType::S8>(r) : product_second<false, IntType::S8>(r);
}

// V vectors of 64 channels.
template <bool Signed, int V>
ONNXQ_INLINE void max_block(const uint8_t* x, ptrdiff_t stride, int64_t count, uint8_t* y, __mmask64 last) {
  __m512i best[V];
#pragma GCC unroll 4
  for (int v = 0; v < V; v++) best[v] = _mm512_maskz_loadu_epi8(v + 1 < V ? ~__mmask64{0} : last, x + kBytes * v);
  for (int64_t k = 1; k < count; k++) {
    const uint8_t* const row = x + k * stride;
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) {
      const __m512i other = _mm512_maskz_loadu_epi8(v + 1 < V ? ~__mmask64{0} : last, row + kBytes * v);
      best[v] = Signed ? _mm512_max_epi8(best[v], other) : _mm512_max_epu8(best[v], other);
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < V; v++) _mm512_mask_storeu_epi8(y + kBytes * v, v + 1 < V ? ~__mmask64{0} : last, best[v]);
}

template <bool Signed>
ONNXQ_INLINE void max_all(const uint8_t* x, ptrdiff_t stride, int64_t count, uint8_t* y, int64_t n) {
  int64_t i = 0;
  for (; i + 4 * kBytes <= n; i += 4 * kBytes) max_block<Signed, 4>(x + i, stride, count, y + i, ~__mmask64{0});
  for (; i < n; i += kBytes) max_block<Signed, 1>(x + i, stride, count, y + i, mask64(n - i));
}

void max_words(const int32_t* x, ptrdiff_t stride, int64_t count, int32_t* y, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const __mmask16 mask = mask16(n - i);
    __m512i best = _mm512_maskz_loadu_epi32(mask, x + i);
    for (int64_t k = 1; k < count; k++)
      best = _mm512_max_epi32(best, _mm512_maskz_loadu_epi32(mask, x + k * stride + i));
    _mm512_mask_storeu_epi32(y + i, mask, best);
  }
}

void max_shorts(const int16_t* x, ptrdiff_t stride, int64_t count, int16_t* y, int64_t n) {
  constexpr int64_t kShorts = 32;
  for (int64_t i = 0; i < n; i += kShorts) {
    const __mmask32 mask = n - i >= kShorts ? ~__mmask32{0} : (__mmask32{1} << (n - i)) - 1;
    __m512i best = _mm512_maskz_loadu_epi16(mask, x + i);
    for (int64_t k = 1; k < count; k++)
      best = _mm512_max_epi16(best, _mm512_maskz_loadu_epi16(mask, x + k * stride + i));
    _mm512_mask_storeu_epi16(y + i, mask, best);
  }
}

void max_rows(const void* x, IntType type, ptrdiff_t stride, int64_t count, void* y, int64_t n) {
  if (type == IntType::S32)
    return max_words(static_cast<const int32_t*>(x), stride, count, static_cast<int32_t*>(y), n);
  if (type == IntType::S16)
    return max_shorts(static_cast<const int16_t*>(x), stride, count, static_cast<int16_t*>(y), n);
  const auto* const from = static_cast<const uint8_t*>(x);
  auto* const to = static_cast<uint8_t*>(y);
  return type == IntType::S8 ? max_all<true>(from, stride, count, to, n) : max_all<false>(from, stride, count, to, n);
}

// 32 channels: sums of up to kDeep rows fit 16 bits.
template <bool Signed>
ONNXQ_INLINE void sum_bytes(const uint8_t* x, ptrdiff_t stride, int64_t count, int32_t init, int32_t* acc, int64_t n) {
  constexpr int64_t kDeep = Signed ? 256 : 257;
  for (int64_t i = 0; i < n; i += 32) {
    const auto mask = static_cast<__mmask32>(mask64(n - i));
    __m512i low = _mm512_set1_epi32(init), high = low;
    for (int64_t k0 = 0; k0 < count; k0 += kDeep) {
      const int64_t end = k0 + kDeep < count ? k0 + kDeep : count;
      __m512i sum = _mm512_setzero_si512();
      for (int64_t k = k0; k < end; k++) {
        const __m256i row = _mm256_maskz_loadu_epi8(mask, x + k * stride + i);
        sum = _mm512_add_epi16(sum, Signed ? _mm512_cvtepi8_epi16(row) : _mm512_cvtepu8_epi16(row));
      }
      const __m256i first = _mm512_castsi512_si256(sum), second = _mm512_extracti64x4_epi64(sum, 1);
      low = _mm512_add_epi32(low, Signed ? _mm512_cvtepi16_epi32(first) : _mm512_cvtepu16_epi32(first));
      high = _mm512_add_epi32(high, Signed ? _mm512_cvtepi16_epi32(second) : _mm512_cvtepu16_epi32(second));
    }
    _mm512_mask_storeu_epi32(acc + i, static_cast<__mmask16>(mask), low);
    _mm512_mask_storeu_epi32(acc + i + kLanes, static_cast<__mmask16>(mask >> 16), high);
  }
}

template <IntType T>
ONNXQ_INLINE void sum_words(const void* x, ptrdiff_t stride, int64_t count, int32_t init, int32_t* acc, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const __mmask16 mask = mask16(n - i);
    __m512i sum = _mm512_set1_epi32(init);
    for (int64_t k = 0; k < count; k++) sum = _mm512_add_epi32(sum, load16<T>(x, k * stride + i, mask));
    _mm512_mask_storeu_epi32(acc + i, mask, sum);
  }
}

void sum_rows(const void* x, IntType type, ptrdiff_t stride, int64_t count, int32_t init, int32_t* acc, int64_t n) {
  if (n == 1 && stride == 1) return plain_sum_rows(x, type, stride, count, init, acc, n);
  if (is_byte(type)) {
    const auto* const bytes = static_cast<const uint8_t*>(x);
    return type == IntType::S8 ? sum_bytes<true>(bytes, stride, count, init, acc, n)
                               : sum_bytes<false>(bytes, stride, count, init, acc, n);
  }
  return type == IntType::S16 ? sum_words<IntType::S16>(x, stride, count, init, acc, n)
                              : sum_words<IntType::S32>(x, stride, count, init, acc, n);
}

// Bytes of four rows are interleaved within 128-bit lanes, then the lanes are put in order: vector v takes lane v of
// all four.
void pack_step(const uint8_t* b, ptrdiff_t stride, int rows, int columns, uint8_t flip, uint8_t* panel, int32_t* sums) {
  const __mmask64 mask = mask64(columns);
  const __m512i flips = _mm512_maskz_set1_epi8(mask, static_cast<char>(flip)), ones = _mm512_set1_epi8(1);
  __m512i row[4];
#pragma GCC unroll 4
  for (int r = 0; r < 4; r++)
    row[r] = r < rows ? _mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, b + r * stride), flips) : _mm512_setzero_si512();
  const __m512i low01 = _mm512_unpacklo_epi8(row[0], row[1]), high01 = _mm512_unpackhi_epi8(row[0], row[1]);
  const __m512i low23 = _mm512_unpacklo_epi8(row[2], row[3]), high23 = _mm512_unpackhi_epi8(row[2], row[3]);
  const __m512i a = _mm512_unpacklo_epi16(low01, low23), c = _mm512_unpackhi_epi16(low01, low23);
  const __m512i d = _mm512_unpacklo_epi16(high01, high23), e = _mm512_unpackhi_epi16(high01, high23);
  const __m512i ac_low = _mm512_shuffle_i32x4(a, c, 0x44), ac_high = _mm512_shuffle_i32x4(a, c, 0xee);
  const __m512i de_low = _mm512_shuffle_i32x4(d, e, 0x44), de_high = _mm512_shuffle_i32x4(d, e, 0xee);
  const __m512i ordered[4] = {_mm512_shuffle_i32x4(ac_low, de_low, 0x88), _mm512_shuffle_i32x4(ac_low, de_low, 0xdd),
                              _mm512_shuffle_i32x4(ac_high, de_high, 0x88),
                              _mm512_shuffle_i32x4(ac_high, de_high, 0xdd)};
#pragma GCC unroll 4
  for (int v = 0; v < 4; v++) {
    if (v * kLanes >= columns) break;
    _mm512_storeu_si512(panel + v * kBytes, ordered[v]);
    int32_t* const to = sums + v * kLanes;
    _mm512_storeu_si512(to, _mm512_dpbusd_epi32(_mm512_loadu_si512(to), ones, ordered[v]));
  }
}

constexpr Elementwise table(decltype(Elementwise::lookup) lookup, decltype(Elementwise::table_sum) table_sum) {
  return {sum,      byte_sum, product,       lookup,      table_sum, ymm_channels_last,
          max_rows, sum_rows, plain_moments, plain_scale, pack_step, plain_subtract,
          plain_divide};
}

constexpr Elementwise kTable = table(plain_lookup, plain_table_sum);
constexpr Elementwise kTableVbmi = table(lookup_vbmi, table_sum_vbmi);

}  // namespace

const Elementwise& elementwise_avx512() { return cpu_features().avx512vbmi ? kTableVbmi : kTable; }

}  // namespace onnxq
