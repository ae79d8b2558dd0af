// The inner loops with AVX2. What remains after the last whole vector is done by the plain loops.
//
// Rescales in 64 bits: vpmuldq multiplies the even int32 lanes; the odd ones are shifted down first. There is no
// 64-bit arithmetic shift: 2^63 is added to make the sum non-negative, and 2^(63−c) is subtracted after the logical
// shift.
#include <immintrin.h>

#include "cpu/common/inline.hpp"
#include "cpu/elementwise/plain.hpp"
#include "cpu/elementwise/tables.hpp"
#include "cpu/elementwise/ymm_channels_last.hpp"

namespace onnxq {
namespace {

constexpr int kLanes = 8, kBytes = 32;

ONNXQ_INLINE __m256i load256(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
ONNXQ_INLINE void store256(void* p, __m256i v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }
ONNXQ_INLINE __m256i odd_lanes(__m256i v) { return _mm256_srli_epi64(v, 32); }

template <IntType T>
ONNXQ_INLINE __m256i load8(const void* data, int64_t i) {
  if (T == IntType::S32) return load256(static_cast<const int32_t*>(data) + i);
  if (T == IntType::S16)
    return _mm256_cvtepi16_epi32(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(static_cast<const int16_t*>(data) + i)));
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(static_cast<const uint8_t*>(data) + i));
  return T == IntType::U8 ? _mm256_cvtepu8_epi32(bytes) : _mm256_cvtepi8_epi32(bytes);
}

struct Constants {
  __m256i a_even, a_odd, b_even, b_odd;  // multipliers of the even and of the odd lanes
  __m256i offset_even, offset_odd;       // plus 2^63
  __m256i shift_even, shift_odd;
  __m256i zero_point;                              // minus 2^(63−c), in 32 bits
  __m256i low_even, low_odd, high_even, high_odd;  // of the shifted sum, plus 2^(63−c)
};

ONNXQ_INLINE void set_bounds(Constants& c, const OutputRange& range) {
  const __m256i top = _mm256_set1_epi64x(INT64_MIN);
  const __m256i top_even = _mm256_srlv_epi64(top, c.shift_even), top_odd = _mm256_srlv_epi64(top, c.shift_odd);
  const __m256i low = _mm256_set1_epi64x(int64_t{range.qmin} - range.zero_point);
  const __m256i high = _mm256_set1_epi64x(int64_t{range.qmax} - range.zero_point);
  c.low_even = _mm256_add_epi64(top_even, low);
  c.low_odd = _mm256_add_epi64(top_odd, low);
  c.high_even = _mm256_add_epi64(top_even, high);
  c.high_odd = _mm256_add_epi64(top_odd, high);
  c.zero_point = _mm256_sub_epi32(_mm256_set1_epi32(range.zero_point),
                                  _mm256_blend_epi32(top_even, _mm256_slli_epi64(top_odd, 32), 0xaa));
}

ONNXQ_INLINE Constants uniform_constants(int32_t a, int32_t b, int64_t offset, int32_t shift,
                                         const OutputRange& range) {
  Constants c;
  c.a_even = c.a_odd = _mm256_set1_epi32(a);
  c.b_even = c.b_odd = _mm256_set1_epi32(b);
  c.offset_even = c.offset_odd = _mm256_add_epi64(_mm256_set1_epi64x(offset), _mm256_set1_epi64x(INT64_MIN));
  c.shift_even = c.shift_odd = _mm256_set1_epi64x(shift);
  set_bounds(c, range);
  return c;
}

template <bool Two>
ONNXQ_INLINE void load_constants(const SumRow& r, int64_t i, Constants& c) {
  c.a_even = load256(r.a_multiplier + i);
  c.a_odd = odd_lanes(c.a_even);
  if (Two) {
    c.b_even = load256(r.b_multiplier + i);
    c.b_odd = odd_lanes(c.b_even);
  }
  const __m256i shift = load256(r.shift + i), top = _mm256_set1_epi64x(INT64_MIN);
  c.shift_even = _mm256_and_si256(shift, _mm256_set1_epi64x(0xff));
  c.shift_odd = odd_lanes(shift);
  const __m256i first = load256(r.offset + i), second = load256(r.offset + i + 4);  // 0 1 2 3 and 4 5 6 7
  const __m256i even = _mm256_unpacklo_epi64(first, second), odd = _mm256_unpackhi_epi64(first, second);  // 0 4 2 6
  c.offset_even = _mm256_add_epi64(_mm256_permute4x64_epi64(even, 0xd8), top);
  c.offset_odd = _mm256_add_epi64(_mm256_permute4x64_epi64(odd, 0xd8), top);
  set_bounds(c, r.range);
}

ONNXQ_INLINE __m256i clamp64(__m256i v, __m256i low, __m256i high) {
  v = _mm256_blendv_epi8(v, low, _mm256_cmpgt_epi64(low, v));
  return _mm256_blendv_epi8(v, high, _mm256_cmpgt_epi64(v, high));
}

// The shifted sum with the zero point, saturated only where the sum may exceed int32.
template <bool Two, bool Narrow>
ONNXQ_INLINE __m256i scaled(__m256i a, __m256i b, const Constants& c) {
  __m256i even = _mm256_add_epi64(_mm256_mul_epi32(a, c.a_even), c.offset_even);
  __m256i odd = _mm256_add_epi64(_mm256_mul_epi32(odd_lanes(a), c.a_odd), c.offset_odd);
  if (Two) {
    even = _mm256_add_epi64(even, _mm256_mul_epi32(b, c.b_even));
    odd = _mm256_add_epi64(odd, _mm256_mul_epi32(odd_lanes(b), c.b_odd));
  }
  even = _mm256_srlv_epi64(even, c.shift_even);
  odd = _mm256_srlv_epi64(odd, c.shift_odd);
  if (!Narrow) {
    even = clamp64(even, c.low_even, c.high_even);
    odd = clamp64(odd, c.low_odd, c.high_odd);
  }
  return _mm256_add_epi32(_mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa), c.zero_point);
}

// 32 values to bytes. ordered: y[v] holds values in the order of unpacking within 128-bit lanes, not 8 consecutive
// ones.
ONNXQ_INLINE __m256i saturated_bytes(const __m256i y[4], const OutputRange& range, bool ordered) {
  const __m256i low = _mm256_set1_epi8(static_cast<char>(range.qmin));
  const __m256i high = _mm256_set1_epi8(static_cast<char>(range.qmax));
  const __m256i first = _mm256_packs_epi32(y[0], y[1]), second = _mm256_packs_epi32(y[2], y[3]);
  __m256i bytes;
  if (range.type == IntType::S8) {
    bytes = _mm256_packs_epi16(first, second);
    bytes = _mm256_min_epi8(_mm256_max_epi8(bytes, low), high);
  } else {
    bytes = _mm256_packus_epi16(first, second);
    bytes = _mm256_min_epu8(_mm256_max_epu8(bytes, low), high);
  }
  if (ordered) return bytes;
  return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

// Stores value(i) for 8 positions at a time; returns how many positions were done in whole vectors.
template <class F>
ONNXQ_INLINE int64_t each8(const OutputRange& range, void* y, int64_t n, const F& value) {
  int64_t i = 0;
  if (range.type == IntType::S32) {
    const __m256i low = _mm256_set1_epi32(range.qmin), high = _mm256_set1_epi32(range.qmax);
    for (; i + kLanes <= n; i += kLanes)
      store256(static_cast<int32_t*>(y) + i, _mm256_min_epi32(_mm256_max_epi32(value(i), low), high));
    return i;
  }
  if (range.type == IntType::S16) {
    const __m128i low = _mm_set1_epi16(static_cast<int16_t>(range.qmin));
    const __m128i high = _mm_set1_epi16(static_cast<int16_t>(range.qmax));
    for (; i + kLanes <= n; i += kLanes) {
      const __m256i v = value(i);
      const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(static_cast<int16_t*>(y) + i),
                       _mm_min_epi16(_mm_max_epi16(words, low), high));
    }
    return i;
  }
  auto* const to = static_cast<uint8_t*>(y);
  for (; i + kBytes <= n; i += kBytes) {
    const __m256i v[4] = {value(i), value(i + kLanes), value(i + 2 * kLanes), value(i + 3 * kLanes)};
    store256(to + i, saturated_bytes(v, range, false));
  }
  const __m256i zero = _mm256_setzero_si256();
  for (; i + kLanes <= n; i += kLanes) {
    const __m256i v[4] = {value(i), zero, zero, zero};
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to + i), _mm256_castsi256_si128(saturated_bytes(v, range, false)));
  }
  return i;
}

template <bool Two, bool Narrow, bool Uniform, IntType A, IntType B>
int64_t sum_row(const SumRow& r) {
  Constants c = uniform_constants(*r.a_multiplier, Two ? *r.b_multiplier : 0, *r.offset, *r.shift, r.range);
  return each8(r.range, r.y, r.n, [&](int64_t i) __attribute__((always_inline)) {
    if (!Uniform) load_constants<Two>(r, i, c);
    const __m256i b = Two ? load8<B>(r.b, i) : _mm256_setzero_si256();
    return scaled<Two, Narrow>(load8<A>(r.a, i), b, c);
  });
}

template <bool Two, IntType A, IntType B>
int64_t sum_types(const SumRow& r) {
  if (r.uniform) return r.narrow ? sum_row<Two, true, true, A, B>(r) : sum_row<Two, false, true, A, B>(r);
  return r.narrow ? sum_row<Two, true, false, A, B>(r) : sum_row<Two, false, false, A, B>(r);
}

template <IntType A>
int64_t sum_second(const SumRow& r) {
  if (!r.b) return sum_types<false, A, IntType::U8>(r);
  switch (r.b_type) {
    case IntType::U8: return sum_types<true, A, IntType::U8>(r);
    case IntType::S8: return sum_types<true, A, IntType::S8>(r);
    case IntType::S16: return sum_types<true, A, IntType::S16>(r);
    default: return sum_types<true, A, IntType::S32>(r);
  }
}

int64_t sum_first(const SumRow& r) {
  switch (r.a_type) {
    case IntType::U8: return sum_second<IntType::U8>(r);
    case IntType::S8: return sum_second<IntType::S8>(r);
    case IntType::S16: return sum_second<IntType::S16>(r);
    default: return sum_second<IntType::S32>(r);
  }
}

ONNXQ_INLINE const void* from(const void* data, IntType type, int64_t i) {
  return static_cast<const uint8_t*>(data) + i * size_of(type);
}

void sum(const SumRow& r) {
  const int64_t done = sum_first(r);
  if (done == r.n) return;
  SumRow rest = r;
  rest.n -= done;
  rest.a = from(r.a, r.a_type, done);
  if (r.b) rest.b = from(r.b, r.b_type, done);
  rest.y = static_cast<uint8_t*>(r.y) + done * size_of(r.range.type);
  if (!r.uniform) {
    rest.a_multiplier += done;
    if (r.b) rest.b_multiplier += done;
    rest.shift += done;
    rest.offset += done;
  }
  plain_sum(rest);
}

// A lane holds a and b as 16-bit halves: one instruction multiplies and adds both. Signed bytes are read as x + 128,
// and 128 times the multiplier is subtracted.
void byte_sum(const ByteSum& s, const void* a, const void* b, void* y, int64_t n) {
  const auto pair = [](int16_t first, int16_t second) {
    return _mm256_set1_epi32((int32_t{second} * 65536) | static_cast<uint16_t>(first));
  };
  const auto raised = [&](int32_t offset, int16_t p, int16_t q) {
    return _mm256_set1_epi32(offset - (s.a_signed ? 128 * p : 0) - (s.b_signed ? 128 * q : 0));
  };
  const __m256i high = pair(s.a_high, s.b_high), low = pair(s.a_low, s.b_low);
  const __m256i high_offset = raised(s.high, s.a_high, s.b_high), low_offset = raised(s.low, s.a_low, s.b_low);
  const __m256i flip_a = _mm256_set1_epi8(static_cast<char>(s.a_signed ? 0x80 : 0));
  const __m256i flip_b = _mm256_set1_epi8(static_cast<char>(s.b_signed ? 0x80 : 0));
  const __m256i zero = _mm256_setzero_si256(), zero_point = _mm256_set1_epi32(s.range.zero_point);
  const __m128i shift = _mm_cvtsi32_si128(s.shift);
  const auto scaled_pairs = [&](__m256i pairs) __attribute__((always_inline)) {
    const __m256i h = _mm256_add_epi32(_mm256_madd_epi16(pairs, high), high_offset);
    const __m256i l = _mm256_add_epi32(_mm256_madd_epi16(pairs, low), low_offset);
    return _mm256_add_epi32(_mm256_sra_epi32(_mm256_add_epi32(h, _mm256_srai_epi32(l, 16)), shift), zero_point);
  };
  const auto* const from_a = static_cast<const uint8_t*>(a);
  const auto* const from_b = static_cast<const uint8_t*>(b);
  auto* const to = static_cast<uint8_t*>(y);
  int64_t i = 0;
  for (; i + kBytes <= n; i += kBytes) {
    const __m256i p = _mm256_xor_si256(load256(from_a + i), flip_a), q = _mm256_xor_si256(load256(from_b + i), flip_b);
    const __m256i first = _mm256_unpacklo_epi8(p, q), second = _mm256_unpackhi_epi8(p, q);
    const __m256i v[4] = {
        scaled_pairs(_mm256_unpacklo_epi8(first, zero)), scaled_pairs(_mm256_unpackhi_epi8(first, zero)),
        scaled_pairs(_mm256_unpacklo_epi8(second, zero)), scaled_pairs(_mm256_unpackhi_epi8(second, zero))};
    store256(to + i, saturated_bytes(v, s.range, true));
  }
  if (i < n) plain_byte_sum(s, from_a + i, from_b + i, to + i, n - i);
}

template <bool Narrow, IntType A, IntType B>
int64_t product_row(const ProductRow& r) {
  const Constants c = uniform_constants(r.multiplier, 0, int64_t{1} << (r.shift - 1), r.shift, r.range);
  const __m256i a_zero_point = _mm256_set1_epi32(r.a_zero_point), b_zero_point = _mm256_set1_epi32(r.b_zero_point);
  return each8(r.range, r.y, r.n, [&](int64_t i) __attribute__((always_inline)) {
    const __m256i a = _mm256_sub_epi32(load8<A>(r.a, i), a_zero_point);
    const __m256i b = _mm256_sub_epi32(load8<B>(r.b, i), b_zero_point);
    // Both fit 16 bits; the upper halves of a are cleared so that they contribute nothing.
    const __m256i product = _mm256_madd_epi16(_mm256_and_si256(a, _mm256_set1_epi32(0xffff)), b);
    return scaled<false, Narrow>(product, product, c);
  });
}

template <bool Narrow, IntType A>
int64_t product_second(const ProductRow& r) {
  return r.b_type == IntType::U8 ? product_row<Narrow, A, IntType::U8>(r) : product_row<Narrow, A, IntType::S8>(r);
}

int64_t product_first(const ProductRow& r) {
  if (r.a_type == IntType::U8)
    return r.narrow ? product_second<true, IntType::U8>(r) : product_second<false, IntType::U8>(r);
  return r.narrow ? product_second<true, IntType::S8>(r) : product_second<false, IntType::S8>(r);
}

void product(const ProductRow& r) {
  const int64_t done = product_first(r);
  if (done == r.n) return;
  ProductRow rest = r;
  rest.n -= done;
  rest.a = from(r.a, r.a_type, done);
  rest.b = from(r.b, r.b_type, done);
  rest.y = static_cast<uint8_t*>(r.y) + done * size_of(r.range.type);
  plain_product(rest);
}

// V vectors of 32 channels.
template <bool Signed, int V>
ONNXQ_INLINE void max_block(const uint8_t* x, ptrdiff_t stride, int64_t count, uint8_t* y) {
  __m256i best[V];
#pragma GCC unroll 4
  for (int v = 0; v < V; v++) best[v] = load256(x + kBytes * v);
  for (int64_t k = 1; k < count; k++) {
    const uint8_t* const row = x + k * stride;
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) {
      const __m256i other = load256(row + kBytes * v);
      best[v] = Signed ? _mm256_max_epi8(best[v], other) : _mm256_max_epu8(best[v], other);
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < V; v++) store256(y + kBytes * v, best[v]);
}

template <bool Signed>
ONNXQ_INLINE void max_all(const uint8_t* x, ptrdiff_t stride, int64_t count, uint8_t* y, int64_t n) {
  int64_t i = 0;
  for (; i + 4 * kBytes <= n; i += 4 * kBytes) max_block<Signed, 4>(x + i, stride, count, y + i);
  for (; i + kBytes <= n; i += kBytes) max_block<Signed, 1>(x + i, stride, count, y + i);
  if (i < n) plain_max_rows(x + i, Signed ? IntType::S8 : IntType::U8, stride, count, y + i, n - i);
}

template <class T>
void max_words(const T* x, ptrdiff_t stride, int64_t count, T* y, int64_t n) {
  constexpr bool kShort = sizeof(T) == 2;
  constexpr int64_t kStep = kBytes / sizeof(T);
  int64_t i = 0;
  for (; i + kStep <= n; i += kStep) {
    __m256i best = load256(x + i);
    for (int64_t k = 1; k < count; k++) {
      const __m256i other = load256(x + k * stride + i);
      best = kShort ? _mm256_max_epi16(best, other) : _mm256_max_epi32(best, other);
    }
    store256(y + i, best);
  }
  if (i < n) plain_max_rows(x + i, kShort ? IntType::S16 : IntType::S32, stride, count, y + i, n - i);
}

void max_rows(const void* x, IntType type, ptrdiff_t stride, int64_t count, void* y, int64_t n) {
  if (type == IntType::S32)
    return max_words(static_cast<const int32_t*>(x), stride, count, static_cast<int32_t*>(y), n);
  if (type == IntType::S16)
    return max_words(static_cast<const int16_t*>(x), stride, count, static_cast<int16_t*>(y), n);
  const auto* const from = static_cast<const uint8_t*>(x);
  auto* const to = static_cast<uint8_t*>(y);
  return type == IntType::S8 ? max_all<true>(from, stride, count, to, n) : max_all<false>(from, stride, count, to, n);
}

// 16 channels: sums of up to kDeep rows fit 16 bits.
template <bool Signed>
ONNXQ_INLINE int64_t sum_bytes(const uint8_t* x, ptrdiff_t stride, int64_t count, int32_t init, int32_t* acc,
                               int64_t n) {
  constexpr int64_t kDeep = Signed ? 256 : 257, kWords = 16;
  int64_t i = 0;
  for (; i + kWords <= n; i += kWords) {
    __m256i low = _mm256_set1_epi32(init), high = low;
    for (int64_t k0 = 0; k0 < count; k0 += kDeep) {
      const int64_t end = k0 + kDeep < count ? k0 + kDeep : count;
      __m256i sum = _mm256_setzero_si256();
      for (int64_t k = k0; k < end; k++) {
        const __m128i row = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x + k * stride + i));
        sum = _mm256_add_epi16(sum, Signed ? _mm256_cvtepi8_epi16(row) : _mm256_cvtepu8_epi16(row));
      }
      const __m128i first = _mm256_castsi256_si128(sum), second = _mm256_extracti128_si256(sum, 1);
      low = _mm256_add_epi32(low, Signed ? _mm256_cvtepi16_epi32(first) : _mm256_cvtepu16_epi32(first));
      high = _mm256_add_epi32(high, Signed ? _mm256_cvtepi16_epi32(second) : _mm256_cvtepu16_epi32(second));
    }
    store256(acc + i, low);
    store256(acc + i + kLanes, high);
  }
  return i;
}

template <IntType T>
ONNXQ_INLINE int64_t sum_words(const void* x, ptrdiff_t stride, int64_t count, int32_t init, int32_t* acc, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    __m256i sum = _mm256_set1_epi32(init);
    for (int64_t k = 0; k < count; k++) sum = _mm256_add_epi32(sum, load8<T>(x, k * stride + i));
    store256(acc + i, sum);
  }
  return i;
}

void sum_rows(const void* x, IntType type, ptrdiff_t stride, int64_t count, int32_t init, int32_t* acc, int64_t n) {
  int64_t i = 0;
  if (type == IntType::S32) {
    i = sum_words<IntType::S32>(x, stride, count, init, acc, n);
  } else if (type == IntType::S16) {
    i = sum_words<IntType::S16>(x, stride, count, init, acc, n);
  } else {
    const auto* const bytes = static_cast<const uint8_t*>(x);
    i = type == IntType::S8 ? sum_bytes<true>(bytes, stride, count, init, acc, n)
                            : sum_bytes<false>(bytes, stride, count, init, acc, n);
  }
  if (i < n) plain_sum_rows(from(x, type, i), type, stride, count, init, acc + i, n - i);
}

constexpr Elementwise kTable = {sum,         byte_sum, product,       plain_lookup, plain_table_sum, ymm_channels_last,
                                max_rows,    sum_rows, plain_moments, plain_scale,  plain_pack_step, plain_subtract,
                                plain_divide};

}  // namespace

const Elementwise& elementwise_avx2() { return kTable; }

}  // namespace onnxq
