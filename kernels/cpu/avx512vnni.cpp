// AVX-512 VNNI: vpdpbusd multiplies 4 unsigned by 4 signed bytes into each of 16 int32 lanes, without saturation.
//
// GEMM: a block of M rows by 16·V channels stays in registers. A step loads V vectors of weights and broadcasts 4 bytes of
// each row, M·V multiply-adds in all. M is chosen so that M·V accumulators, the weights and a broadcast fit 32 registers
// and hide the instruction's latency of 5 at two a cycle.
#include "cpu/avx512vnni.hpp"

#include <immintrin.h>

#include "cpu/features.hpp"

namespace onnxq {
namespace {

#define ONNXQ_INLINE static inline __attribute__((always_inline))

ONNXQ_INLINE int32_t load4(const uint8_t* p) {
  int32_t v;
  __builtin_memcpy(&v, p, 4);
  return v;
}

// The instruction itself: through the intrinsic GCC copies accumulators to the stack and back.
ONNXQ_INLINE void multiply_add(__m512i& acc, __m512i x, __m512i w) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(x), "v"(w));
}

template <int M, int V>
void gemm_block(const GemmBlock& b) {
  __m512i acc[M][V];
#pragma GCC unroll 4
  for (int v = 0; v < V; v++)
#pragma GCC unroll 16
    for (int i = 0; i < M; i++) acc[i][v] = _mm512_loadu_si512(b.init + 16 * v);
  const int8_t* w = b.panel;
  const int8_t* next = b.prefetch;
  for (int t = 0; t < b.tap_count; t++) {
    const uint8_t* row[M];
#pragma GCC unroll 16
    for (int i = 0; i < M; i++) row[i] = b.rows[i] + b.taps[t];
    const ptrdiff_t end = ptrdiff_t{kStep} * b.steps;
    for (ptrdiff_t k = 0; k < end; k += kStep, w += 64 * V, next += b.prefetch_stride) {
      _mm_prefetch(next, _MM_HINT_T1);
      __m512i weights[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; v++) weights[v] = _mm512_loadu_si512(w + 64 * v);
#pragma GCC unroll 16
      for (int i = 0; i < M; i++) {
        const __m512i x = _mm512_set1_epi32(load4(row[i] + k));
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) multiply_add(acc[i][v], x, weights[v]);
      }
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < M; i++)
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) _mm512_store_si512(b.acc + i * kPanel + 16 * v, acc[i][v]);
}

template <int V>
void gemm_vectors(const GemmBlock& b) {
  switch (b.m) {
    case 1: return gemm_block<1, V>(b);
    case 2: return gemm_block<2, V>(b);
    case 3: return gemm_block<3, V>(b);
    case 4: return gemm_block<4, V>(b);
    case 5: return gemm_block<5, V>(b);
    case 6: return gemm_block<6, V>(b);
    case 7:
      if constexpr (V < 4) return gemm_block<7, V>(b);
      break;
    case 8:
      if constexpr (V < 4) return gemm_block<8, V>(b);
      break;
    case 9:
      if constexpr (V < 3) return gemm_block<9, V>(b);
      break;
    case 10:
      if constexpr (V < 3) return gemm_block<10, V>(b);
      break;
    default: break;
  }
  __builtin_unreachable();
}

void gemm(const GemmBlock& b) {
  switch (b.vectors) {
    case 1: return gemm_vectors<1>(b);
    case 2: return gemm_vectors<2>(b);
    case 3: return gemm_vectors<3>(b);
    default: return gemm_vectors<4>(b);
  }
}

// The two lines of weights that a line of nibbles holds.
ONNXQ_INLINE void unpack_line(const void* src, __m512i& first, __m512i& second) {
  const __m512i signs =
      _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1));
  const __m512i mask = _mm512_set1_epi8(15), nibbles = _mm512_loadu_si512(src);
  first = _mm512_shuffle_epi8(signs, _mm512_and_si512(nibbles, mask));
  second = _mm512_shuffle_epi8(signs, _mm512_and_si512(_mm512_srli_epi16(nibbles, 4), mask));
}

void unpack4(const uint8_t* src, int8_t* dst, size_t lines) {
  for (size_t i = 0; i < lines; i++) {
    __m512i first, second;
    unpack_line(src + 64 * i, first, second);
    _mm512_storeu_si512(dst + 128 * i, first);
    _mm512_storeu_si512(dst + 128 * i + 64, second);
  }
}

// For few rows, where reading the weights is what takes the time. Two steps at a time, so that lines come in pairs for
// every V.
template <int M, int V>
void gemm4_block(const GemmBlock& b) {
  __m512i acc[M][V];
#pragma GCC unroll 4
  for (int v = 0; v < V; v++)
#pragma GCC unroll 4
    for (int i = 0; i < M; i++) acc[i][v] = _mm512_loadu_si512(b.init + 16 * v);
  const int8_t* w = b.panel;
  const uint8_t* row[M];
#pragma GCC unroll 4
  for (int i = 0; i < M; i++) row[i] = b.rows[i] + b.taps[0];
  for (int step = 0; step < b.steps; step += 2, w += 64 * V) {
    const bool last = step + 1 == b.steps;  // an odd one: what lies behind the row must not be read
    const int lines = last ? (V + 1) / 2 : V;
    __m512i weights[2 * V];
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) {
      if (v < lines)
        unpack_line(w + 64 * v, weights[2 * v], weights[2 * v + 1]);
      else
        weights[2 * v] = weights[2 * v + 1] = _mm512_setzero_si512();
    }
#pragma GCC unroll 4
    for (int i = 0; i < M; i++) {
      const __m512i x = _mm512_set1_epi32(load4(row[i] + kStep * step));
#pragma GCC unroll 4
      for (int v = 0; v < V; v++) acc[i][v] = _mm512_dpbusd_epi32(acc[i][v], x, weights[v]);
    }
    if (last) break;
#pragma GCC unroll 4
    for (int i = 0; i < M; i++) {
      const __m512i x = _mm512_set1_epi32(load4(row[i] + kStep * (step + 1)));
#pragma GCC unroll 4
      for (int v = 0; v < V; v++) acc[i][v] = _mm512_dpbusd_epi32(acc[i][v], x, weights[V + v]);
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < M; i++)
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) _mm512_store_si512(b.acc + i * kPanel + 16 * v, acc[i][v]);
}

template <int V>
void gemm4_vectors(const GemmBlock& b) {
  switch (b.m) {
    case 1: return gemm4_block<1, V>(b);
    case 2: return gemm4_block<2, V>(b);
    case 3: return gemm4_block<3, V>(b);
    default: return gemm4_block<4, V>(b);
  }
}

// Four rows at a time.
void gemm4(const GemmBlock& b) {
  for (int i = 0; i < b.m; i += 4) {
    GemmBlock part = b;
    part.rows += i;
    part.acc += i * kPanel;
    part.m = b.m - i < 4 ? b.m - i : 4;
    switch (b.vectors) {
      case 1: gemm4_vectors<1>(part); break;
      case 2: gemm4_vectors<2>(part); break;
      case 3: gemm4_vectors<3>(part); break;
      default: gemm4_vectors<4>(part);
    }
  }
}

// --- Epilogue -------------------------------------------------------------------------------------------------------
//
// vpmuldq multiplies the even int32 lanes into int64; the odd ones come down by a shuffle first. Both halves are rounded,
// shifted and merged again. With a shift of 32 the shift is no instruction at all: the high halves are taken.

enum class Shift { k32, kUniform, kVector };
enum class Residual { kNone, kU8, kS8, kS32 };

struct Constants {
  __m512i even, odd;  // multipliers of the even and of the odd channels
  __m512i round_even, round_odd;
  __m512i shift_even, shift_odd;
  __m512i residual_even, residual_odd;
};

ONNXQ_INLINE __m512i odd_lanes(__m512i v) { return _mm512_shuffle_epi32(v, _MM_PERM_DDBB); }

// Half a unit, and the zero point, which goes in with it: `narrow` says that there is room.
ONNXQ_INLINE __m512i rounding(const EpilogueBlock& e, __m512i shift) {
  const __m512i one = _mm512_set1_epi64(1);
  const __m512i half = _mm512_sllv_epi64(one, _mm512_sub_epi64(shift, one));
  return _mm512_add_epi64(half, _mm512_sllv_epi64(_mm512_set1_epi64(e.range.zero_point), shift));
}

template <Shift S, Residual R>
ONNXQ_INLINE Constants constants_of(const EpilogueBlock& e, int n) {
  Constants c;
  c.even = _mm512_loadu_si512(e.multiplier + n);
  c.odd = odd_lanes(c.even);
  if (S == Shift::kVector) {
    const __m512i shift = _mm512_loadu_si512(e.shift + n);
    c.shift_even = _mm512_and_si512(shift, _mm512_set1_epi64(0xff));
    c.shift_odd = _mm512_srli_epi64(shift, 32);
    c.round_even = rounding(e, c.shift_even);
    c.round_odd = rounding(e, c.shift_odd);
  } else {
    c.shift_even = c.shift_odd = _mm512_setzero_si512();
    c.round_even = c.round_odd = rounding(e, _mm512_set1_epi64(e.uniform_shift));
  }
  c.residual_even = c.residual_odd = _mm512_setzero_si512();
  if (R != Residual::kNone) {
    c.residual_even = _mm512_loadu_si512(e.residual_multiplier + n);
    c.residual_odd = odd_lanes(c.residual_even);
    // The residual's zero point goes in with the rounding constant too. It may be any int32: 64-bit products.
    const __m512i zero_point = _mm512_set1_epi64(int64_t{e.residual_zero_point} * (int64_t{1} << e.residual_shift));
    const __m512i mask = _mm512_set1_epi64(0xffffffff);
    c.round_even = _mm512_sub_epi64(
        c.round_even, _mm512_mullo_epi64(zero_point, _mm512_and_si512(c.residual_even, mask)));
    c.round_odd =
        _mm512_sub_epi64(c.round_odd, _mm512_mullo_epi64(zero_point, _mm512_and_si512(c.residual_odd, mask)));
  }
  return c;
}

// The scaled int32 of 16 channels, zero point included.
template <Shift S, Residual R>
ONNXQ_INLINE __m512i scale16(__m512i acc, __m512i residual, const Constants& c, __m128i count) {
  __m512i even = _mm512_add_epi64(_mm512_mul_epi32(acc, c.even), c.round_even);
  __m512i odd = _mm512_add_epi64(_mm512_mul_epi32(odd_lanes(acc), c.odd), c.round_odd);
  if (R != Residual::kNone) {
    even = _mm512_add_epi64(even, _mm512_mul_epi32(residual, c.residual_even));
    odd = _mm512_add_epi64(odd, _mm512_mul_epi32(odd_lanes(residual), c.residual_odd));
  }
  if (S == Shift::k32) return _mm512_mask_shuffle_epi32(odd, 0x5555, even, _MM_PERM_DDBB);
  if (S == Shift::kUniform) {
    even = _mm512_sra_epi64(even, count);
    odd = _mm512_sra_epi64(odd, count);
  } else {
    even = _mm512_srav_epi64(even, c.shift_even);
    odd = _mm512_srav_epi64(odd, c.shift_odd);
  }
  return _mm512_mask_shuffle_epi32(even, 0xaaaa, odd, _MM_PERM_CCAA);
}

// 16 values of the residual, times 2^k. at: the first, in elements. Masked loads of bytes are slow: only where a row ends.
template <Residual R>
ONNXQ_INLINE __m512i load_residual(const void* residual, ptrdiff_t at, bool whole, __mmask16 mask, __m512i k) {
  if (R == Residual::kNone) return _mm512_setzero_si512();
  if (R == Residual::kS32) return _mm512_maskz_loadu_epi32(mask, static_cast<const int32_t*>(residual) + at);
  const auto* bytes = static_cast<const uint8_t*>(residual) + at;
  const __m128i r = whole ? _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)) : _mm_maskz_loadu_epi8(mask, bytes);
  return _mm512_sllv_epi32(R == Residual::kU8 ? _mm512_cvtepu8_epi32(r) : _mm512_cvtepi8_epi32(r), k);
}

ONNXQ_INLINE __mmask16 mask16(int n) { return n >= 16 ? __mmask16{0xffff} : n <= 0 ? __mmask16{0} : static_cast<__mmask16>((1u << n) - 1); }

ONNXQ_INLINE void store16(const EpilogueBlock& e, ptrdiff_t i, __m512i y, __mmask16 mask) {
  y = _mm512_min_epi32(_mm512_max_epi32(y, _mm512_set1_epi32(e.range.qmin)), _mm512_set1_epi32(e.range.qmax));
  if (e.range.type == IntType::S32)
    _mm512_mask_storeu_epi32(static_cast<int32_t*>(e.y) + i, mask, y);
  else
    _mm512_mask_cvtepi32_storeu_epi8(static_cast<uint8_t*>(e.y) + i, mask, y);
}

// 16 channels at a time, every type, shift and residual.
template <Shift S, Residual R>
void epilogue_general(const EpilogueBlock& e) {
  const __m128i count = _mm_cvtsi32_si128(e.uniform_shift);
  const __m512i k = _mm512_set1_epi32(e.residual_shift);
  for (int n = 0; n < e.n; n += kVector) {
    const __mmask16 mask = mask16(e.n - n);
    const Constants c = constants_of<S, R>(e, n);
    for (int i = 0; i < e.m; i++) {
      const __m512i acc = _mm512_load_si512(e.acc + i * kPanel + n);
      const __m512i residual = load_residual<R>(e.residual, i * e.residual_stride + n, false, mask, k);
      store16(e, i * e.y_stride + n, scale16<S, R>(acc, residual, c, count), mask);
    }
  }
}

// To 8 bits, 64 bytes at a time: 4 rows of 16 channels, 2 of 32 or 1 of 64 (or of 48).
template <Shift S, Residual R, bool Signed, bool Interleaved, int V>
void epilogue_bytes(const EpilogueBlock& block) {
  const EpilogueBlock e = block;  // a copy: stores of bytes may not change it
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
  const bool clips = e.range.qmax - e.range.qmin != 255;  // else packing saturates already
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i low = _mm512_set1_epi8(static_cast<char>(e.range.qmin));
  const __m512i high = _mm512_set1_epi8(static_cast<char>(e.range.qmax));
  for (int i = 0; i < e.m; i += kRows) {
    __m512i y[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
#pragma GCC unroll 4
    for (int r = 0; r < kRows; r++) {
      const ptrdiff_t row = i + r < e.m ? i + r : e.m - 1;
#pragma GCC unroll 4
      for (int v = 0; v < V; v++) {
        const __m512i residual = load_residual<R>(e.residual, row * e.residual_stride + kVector * v, whole, masks[v], k);
        y[r * V + v] = scale16<S, R>(_mm512_load_si512(e.acc + row * kPanel + kVector * v), residual, c[v], count);
      }
    }
    const __m512i words_low = _mm512_packs_epi32(y[0], y[1]), words_high = _mm512_packs_epi32(y[2], y[3]);
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
      __m256i odd = _mm256_add_epi64(
          _mm256_mul_epi32(_mm256_srli_epi64(acc, 32), _mm256_srli_epi64(multiplier[v], 32)), round_odd[v]);
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

// What the vectors cannot prove: sums that may exceed int32 before they saturate, shifts that leave no room for the zero
// point, interleaved channels to int32.
void epilogue_plain(const EpilogueBlock& e) {
  for (int i = 0; i < e.m; i++)
    for (int p = 0; p < kPanel; p++) {
      const int n = e.interleaved ? interleave(p) : p;
      if (n >= e.n) continue;
      int64_t sum = int64_t{e.acc[i * kPanel + p]} * e.multiplier[p];
      if (e.residual)
        sum += (int64_t{load(e.residual, e.residual_type, i * e.residual_stride + n)} - e.residual_zero_point) *
               (int64_t{1} << e.residual_shift) * e.residual_multiplier[p];
      store(e.y, e.range.type, i * e.y_stride + n, finish(sum, e.shift[p], e.range));
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
    default: return epilogue_general<S, R>(e);
  }
}

template <Shift S>
void epilogue_interleaved(const EpilogueBlock& e) {
  const bool is_signed = e.range.type == IntType::S8;
  if (e.n <= 32) return is_signed ? epilogue_half<S, true>(e) : epilogue_half<S, false>(e);
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
    default: return epilogue_residual<S, Residual::kS32>(e);
  }
}

void epilogue(const EpilogueBlock& e) {
  if (e.identity && !e.interleaved) return epilogue_identity(e);
  if (!e.narrow || (e.interleaved && (e.residual || e.range.type == IntType::S32))) return epilogue_plain(e);
  if (e.uniform_shift == 32) return epilogue_shift<Shift::k32>(e);
  if (e.uniform_shift) return epilogue_shift<Shift::kUniform>(e);
  return epilogue_shift<Shift::kVector>(e);
}

// --- Depthwise convolution ------------------------------------------------------------------------------------------
//
// A column of up to 4 input pixels, 64 channels each, is interleaved byte by byte so that each int32 lane holds the 4 rows
// of a channel: then vpdpbusd multiplies a whole column at once. The lanes stand in the order of `interleave`; packing the
// results to bytes undoes it. Taller kernels take several columns ("quads"), with zero weights behind the last row.

// 64 channels, or 32 where that is all there is: the instructions and the order of the lanes are the same, only the upper
// halves of the registers are not there.
struct Zmm {
  using V = __m512i;
  static V load(const uint8_t* p, __mmask64 mask) { return _mm512_maskz_loadu_epi8(mask, p); }
  static V load(const void* p) { return _mm512_loadu_si512(p); }
  static V zero() { return _mm512_setzero_si512(); }
  static V low8(V a, V b) { return _mm512_unpacklo_epi8(a, b); }
  static V high8(V a, V b) { return _mm512_unpackhi_epi8(a, b); }
  static V low16(V a, V b) { return _mm512_unpacklo_epi16(a, b); }
  static V high16(V a, V b) { return _mm512_unpackhi_epi16(a, b); }
  static V dot(V sum, V x, V w) {
    multiply_add(sum, x, w);
    return sum;
  }
  static void store(int32_t* p, V v) { _mm512_store_si512(p, v); }
};

struct Ymm {
  using V = __m256i;
  static V load(const uint8_t* p, __mmask64 mask) {
    return _mm256_maskz_loadu_epi8(static_cast<__mmask32>(mask), p);
  }
  static V load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
  static V zero() { return _mm256_setzero_si256(); }
  static V low8(V a, V b) { return _mm256_unpacklo_epi8(a, b); }
  static V high8(V a, V b) { return _mm256_unpackhi_epi8(a, b); }
  static V low16(V a, V b) { return _mm256_unpacklo_epi16(a, b); }
  static V high16(V a, V b) { return _mm256_unpackhi_epi16(a, b); }
  static V dot(V sum, V x, V w) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w));
    return sum;
  }
  static void store(int32_t* p, V v) { _mm256_store_si256(reinterpret_cast<__m256i*>(p), v); }
};

template <class R>
struct Column {
  typename R::V v[4];
};

template <class R>
ONNXQ_INLINE Column<R> load_column(const uint8_t* const* rows, int n, int channel, __mmask64 mask) {
  const auto a = R::load(rows[0] + channel, mask);
  const auto b = n > 1 ? R::load(rows[1] + channel, mask) : R::zero();
  const auto c = n > 2 ? R::load(rows[2] + channel, mask) : R::zero();
  const auto d = n > 3 ? R::load(rows[3] + channel, mask) : R::zero();
  const auto ab_low = R::low8(a, b), ab_high = R::high8(a, b), cd_low = R::low8(c, d), cd_high = R::high8(c, d);
  return {{R::low16(ab_low, cd_low), R::high16(ab_low, cd_low), R::low16(ab_high, cd_high), R::high16(ab_high, cd_high)}};
}

constexpr int kPixels = 28;  // output pixels between two epilogues: rows of 7, 14, 28, 56 and 112 come out even

ONNXQ_INLINE void finish_pixels(const DepthwiseBlock& b, const int32_t* acc, int channel, int x, int count) {
  EpilogueBlock e = b.epilogue;
  e.acc = acc;
  e.m = count;
  e.n = b.channels - channel < kPanel ? b.channels - channel : kPanel;
  e.multiplier += channel;
  e.shift += channel;
  const ptrdiff_t at = x * e.y_stride + channel;
  e.y = e.range.type == IntType::S32 ? static_cast<void*>(static_cast<int32_t*>(e.y) + at)
                                     : static_cast<void*>(static_cast<uint8_t*>(e.y) + at);
  epilogue(e);
}

// 3×3, stride 1 or 2, dilation 1: each column is loaded once and serves up to three pixels.
template <class R, int Stride>
void depthwise3x3(const DepthwiseBlock& b, int channel, __mmask64 mask, const int8_t* weights) {
  alignas(64) int32_t acc[kPixels * kPanel];
  typename R::V w[3][4], init[4];
#pragma GCC unroll 3
  for (int j = 0; j < 3; j++)
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) w[j][v] = R::load(weights + (j * 4 + v) * 64);
#pragma GCC unroll 4
  for (int v = 0; v < 4; v++) init[v] = R::load(b.init + channel + 16 * v);
  const auto column = [&](int x) __attribute__((always_inline)) {
    return load_column<R>(b.columns + ptrdiff_t{x} * 3, 3, channel, mask);
  };
  Column<R> left = column(0), middle = column(1);
  for (int x0 = 0; x0 < b.width; x0 += kPixels) {
    const int count = b.width - x0 < kPixels ? b.width - x0 : kPixels;
    for (int i = 0; i < count; i++) {
      if (Stride == 2 && x0 + i > 0) middle = column((x0 + i) * 2 + 1);
      const Column<R> right = column((x0 + i) * Stride + 2);
#pragma GCC unroll 4
      for (int v = 0; v < 4; v++) {
        auto sum = R::dot(init[v], left.v[v], w[0][v]);
        sum = R::dot(sum, middle.v[v], w[1][v]);
        sum = R::dot(sum, right.v[v], w[2][v]);
        R::store(acc + i * kPanel + 16 * v, sum);
      }
      if (Stride == 1) {
        left = middle;
        middle = right;
      } else {
        left = right;
      }
    }
    finish_pixels(b, acc, channel, x0, count);
  }
}

template <class R>
void depthwise_any(const DepthwiseBlock& b, int channel, __mmask64 mask, const int8_t* weights) {
  alignas(64) int32_t acc[kPixels * kPanel];
  const int quads = (b.kh + 3) / 4;
  for (int x0 = 0; x0 < b.width; x0 += kPixels) {
    const int count = b.width - x0 < kPixels ? b.width - x0 : kPixels;
    for (int i = 0; i < count; i++) {
      typename R::V sum[4];
#pragma GCC unroll 4
      for (int v = 0; v < 4; v++) sum[v] = R::load(b.init + channel + 16 * v);
      const int8_t* w = weights;
      for (int j = 0; j < b.kw; j++) {
        const uint8_t* const* rows = b.columns + ptrdiff_t{(x0 + i) * b.stride + j * b.dilation} * b.kh;
        for (int q = 0; q < quads; q++, w += 256) {
          const Column<R> c = load_column<R>(rows + 4 * q, b.kh - 4 * q, channel, mask);
#pragma GCC unroll 4
          for (int v = 0; v < 4; v++) sum[v] = R::dot(sum[v], c.v[v], R::load(w + 64 * v));
        }
      }
#pragma GCC unroll 4
      for (int v = 0; v < 4; v++) R::store(acc + i * kPanel + 16 * v, sum[v]);
    }
    finish_pixels(b, acc, channel, x0, count);
  }
}

template <class R>
void depthwise_panel(const DepthwiseBlock& b, int channel, __mmask64 mask, const int8_t* weights) {
  const bool is3x3 = b.kh == 3 && b.kw == 3 && b.dilation == 1;
  if (is3x3 && b.stride == 1) return depthwise3x3<R, 1>(b, channel, mask, weights);
  if (is3x3 && b.stride == 2) return depthwise3x3<R, 2>(b, channel, mask, weights);
  depthwise_any<R>(b, channel, mask, weights);
}

size_t depthwise_bytes(int kh, int kw) { return static_cast<size_t>((kh + 3) / 4) * static_cast<size_t>(kw) * 256; }

void depthwise(const DepthwiseBlock& b) {
  const size_t bytes = depthwise_bytes(b.kh, b.kw);
  for (int channel = 0; channel < b.channels; channel += kPanel) {
    const int left = b.channels - channel;
    const __mmask64 mask = left >= 64 ? ~__mmask64{0} : (__mmask64{1} << left) - 1;
    const int8_t* weights = b.weights + static_cast<size_t>(channel / kPanel) * bytes;
    if (left > 32)
      depthwise_panel<Zmm>(b, channel, mask, weights);
    else
      depthwise_panel<Ymm>(b, channel, mask, weights);
  }
}

size_t pack_depthwise(const int8_t* weights, int kh, int kw, int channels, int8_t* packed) {
  const int panels = (channels + kPanel - 1) / kPanel, quads = (kh + 3) / 4;
  const size_t bytes = static_cast<size_t>(panels) * depthwise_bytes(kh, kw);
  if (!packed) return bytes;
  for (int panel = 0; panel < panels; panel++)
    for (int j = 0; j < kw; j++)
      for (int q = 0; q < quads; q++)
        for (int p = 0; p < kPanel; p++)
          for (int r = 0; r < 4; r++) {
            const int channel = panel * kPanel + interleave(p), row = 4 * q + r;
            *packed++ = channel < channels && row < kh ? weights[(channel * kh + row) * kw + j] : int8_t{0};
          }
  return bytes;
}

// 24 independent accumulators, as the GEMM's widest block.
int64_t peak(int64_t repeats) {
  constexpr int kAccumulators = 24;
  constexpr int64_t kInner = 1'000'000 / (kAccumulators * 64);
  __m512i acc[kAccumulators];
  const __m512i x = _mm512_set1_epi8(3), w = _mm512_set1_epi8(2);
#pragma GCC unroll 24
  for (int k = 0; k < kAccumulators; k++) {
    acc[k] = _mm512_setzero_si512();
    __asm__ volatile("" : "+v"(acc[k]));  // else all would be one
  }
  for (int64_t i = 0; i < repeats * kInner; i++) {
#pragma GCC unroll 24
    for (int k = 0; k < kAccumulators; k++) acc[k] = _mm512_dpbusd_epi32(acc[k], x, w);
    __asm__ volatile("");
  }
#pragma GCC unroll 24
  for (int k = 0; k < kAccumulators; k++) __asm__ volatile("" : : "v"(acc[k]));
  return repeats * kInner * kAccumulators * 64;
}

}  // namespace

const Tier kAvx512Vnni = {"avx512vnni",
                          [] { return cpu_features().avx512vnni; },
                          {0, 10, 10, 8, 6},
                          gemm,
                          epilogue,
                          unpack4,
                          gemm4,
                          pack_depthwise,
                          depthwise,
                          true,
                          peak};

}  // namespace onnxq
