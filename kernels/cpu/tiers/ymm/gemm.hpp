// What the tiers with 256-bit registers share: GEMM, GEMM on nibbles and unpacking. The file of each tier includes this
// and compiles its own copy: everything is in an unnamed namespace.
//
// A tier provides its dot product of 4 unsigned by 4 signed bytes in each of 8 int32 lanes as a class D:
//   X, W                     activations and weights as `dot` takes them
//   X expand(__m256i)        4 activations per lane
//   W weights(__m256i)       4 weights per lane
//   dot(sum, X, W)           sum + the products
//   dot4(sum, __m256i x, __m256i w)   the same for weights in -8..7, straight from the bytes
//   kRows                    rows of a block of 16 channels that the registers hold
//   kWide[m]                 vectors of 16 channels at a time for m rows, 1 to 4
#pragma once

#include <immintrin.h>

#include "cpu/common/inline.hpp"
#include "cpu/tiers/tier.hpp"

namespace onnxq {
namespace {

constexpr int kLane8 = 8;  // int32 lanes of a register

ONNXQ_INLINE __m256i load256(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
ONNXQ_INLINE void store256(void* p, __m256i v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }

ONNXQ_INLINE __m256i broadcast4(const uint8_t* p) {
  int32_t v;
  __builtin_memcpy(&v, p, 4);
  return _mm256_set1_epi32(v);
}

// Adds the products of one step: weights at w, activations k bytes from the rows.
template <class D, int M, int V>
ONNXQ_INLINE void add_step(__m256i (&acc)[M][2 * V], const uint8_t* const (&row)[M], ptrdiff_t k, const int8_t* w) {
  if constexpr (M < 2 * V) {  // the smaller operand stays in registers
    typename D::X x[M];
    ONNXQ_UNROLL
    for (int i = 0; i < M; i++) x[i] = D::expand(broadcast4(row[i] + k));
    ONNXQ_UNROLL
    for (int v = 0; v < 2 * V; v++) {
      const typename D::W weights = D::weights(load256(w + 32 * v));
      ONNXQ_UNROLL
      for (int i = 0; i < M; i++) acc[i][v] = D::dot(acc[i][v], x[i], weights);
    }
  } else {
    typename D::W weights[2 * V];
    ONNXQ_UNROLL
    for (int v = 0; v < 2 * V; v++) weights[v] = D::weights(load256(w + 32 * v));
    ONNXQ_UNROLL
    for (int i = 0; i < M; i++) {
      const typename D::X x = D::expand(broadcast4(row[i] + k));
      ONNXQ_UNROLL
      for (int v = 0; v < 2 * V; v++) acc[i][v] = D::dot(acc[i][v], x, weights[v]);
    }
  }
  ONNXQ_UNROLL
  for (int i = 0; i < M; i++) {
    ONNXQ_UNROLL
    for (int v = 0; v < 2 * V; v++) __asm__("" : "+x"(acc[i][v]));  // otherwise GCC copies them back and forth
  }
}

// M rows by 16·V channels, from vector `v0` of the panel on.
template <class D, int M, int V>
void gemm_block(const GemmBlock& b, int v0) {
  __m256i acc[M][2 * V];
  ONNXQ_UNROLL
  for (int v = 0; v < 2 * V; v++) {
    ONNXQ_UNROLL
    for (int i = 0; i < M; i++) acc[i][v] = load256(b.init + kVector * v0 + kLane8 * v);
  }
  const ptrdiff_t stride = ptrdiff_t{64} * b.vectors, end = ptrdiff_t{kStep} * b.steps;
  const int8_t* w = b.panel + 64 * v0;
  const int8_t* next = b.prefetch;  // by the first vectors; the others touch the line again
  const ptrdiff_t next_stride = v0 ? 0 : b.prefetch_stride;
  int t = 0;
  do {  // tap_count and steps are at least 1: without a path around the loops, the accumulators stay in registers
    const uint8_t* row[M];
    ONNXQ_UNROLL
    for (int i = 0; i < M; i++) row[i] = b.rows[i] + b.taps[t];
    ptrdiff_t k = 0;
    if (b.steps % 2) {
      add_step<D, M, V>(acc, row, k, w);
      w += stride;
      k += kStep;
    }
    for (; k < end; k += 2 * kStep) {
      _mm_prefetch(next, _MM_HINT_T1);
      _mm_prefetch(next + next_stride, _MM_HINT_T1);
      next += 2 * next_stride;
      add_step<D, M, V>(acc, row, k, w);
      add_step<D, M, V>(acc, row, k + kStep, w + stride);
      w += 2 * stride;
    }
  } while (++t < b.tap_count);
  ONNXQ_UNROLL
  for (int i = 0; i < M; i++) {
    ONNXQ_UNROLL
    for (int v = 0; v < 2 * V; v++) store256(b.acc + i * kPanel + kVector * v0 + kLane8 * v, acc[i][v]);
  }
}

template <class D, int M>
void gemm_rows(const GemmBlock& b) {
  constexpr int kWide = D::kWide[M];
  int v = 0;
  for (; v + kWide <= b.vectors; v += kWide) gemm_block<D, M, kWide>(b, v);
  if constexpr (kWide > 2) {
    if (b.vectors - v >= 2) {
      gemm_block<D, M, 2>(b, v);
      v += 2;
    }
  }
  if constexpr (kWide > 1) {
    if (v < b.vectors) gemm_block<D, M, 1>(b, v);
  }
}

template <class D>
void gemm(const GemmBlock& b) {
  switch (b.m) {
    case 1: return gemm_rows<D, 1>(b);
    case 2: return gemm_rows<D, 2>(b);
    case 3: return gemm_rows<D, 3>(b);
    case 4: return gemm_rows<D, 4>(b);
    case 5:
      if constexpr (D::kRows > 4) return gemm_rows<D, 5>(b);
      break;
    case 6:
      if constexpr (D::kRows > 4) return gemm_rows<D, 6>(b);
      break;
    default: break;
  }
  __builtin_unreachable();
}

// 32 bytes of the two lines of weights that a line of nibbles holds.
ONNXQ_INLINE void unpack_half_line(const void* src, __m256i& first, __m256i& second) {
  const __m256i signs =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1));
  const __m256i mask = _mm256_set1_epi8(15), nibbles = load256(src);
  first = _mm256_shuffle_epi8(signs, _mm256_and_si256(nibbles, mask));
  second = _mm256_shuffle_epi8(signs, _mm256_and_si256(_mm256_srli_epi16(nibbles, 4), mask));
}

void unpack4(const uint8_t* src, int8_t* dst, size_t lines) {
  for (size_t i = 0; i < lines; i++, src += 64, dst += 128)
    for (int half = 0; half < 64; half += 32) {
      __m256i first, second;
      unpack_half_line(src + half, first, second);
      store256(dst + half, first);
      store256(dst + 64 + half, second);
    }
}

// M rows from row `i0` by 16·V channels from vector `v0` of the panel on. A line of nibbles holds two vectors of one
// step where the panel has an even number of vectors, otherwise vectors of two steps: then v0 = 0 and V is all of them.
template <class D, int M, int V>
void gemm4_block(const GemmBlock& b, int i0, int v0) {
  constexpr int kSteps = V % 2 ? 2 : 1;  // at a time, so that lines come in pairs
  constexpr int kLines = V * kSteps / 2;
  __m256i acc[M][2 * V];
  const uint8_t* row[M];
  ONNXQ_UNROLL
  for (int i = 0; i < M; i++) {
    row[i] = b.rows[i0 + i] + b.taps[0];
    ONNXQ_UNROLL
    for (int v = 0; v < 2 * V; v++) acc[i][v] = load256(b.init + kVector * v0 + kLane8 * v);
  }
  const ptrdiff_t stride = ptrdiff_t{32} * b.vectors * kSteps;
  const int8_t* w = b.panel + 32 * v0;
  for (int step = 0; step < b.steps; step += kSteps, w += stride) {
    // After the last of an odd number of steps the row must not be read; the weights there are zero.
    const bool both = step + 1 < b.steps;
    const ptrdiff_t k = ptrdiff_t{kStep} * step;
    ONNXQ_UNROLL
    for (int line = 0; line < kLines; line++) {
      if (kSteps == 2 && !both && line > V / 2) break;
      const int low = 2 * line, high = 2 * line + 1;
      ONNXQ_UNROLL
      for (int half = 0; half < 2; half++) {
        __m256i first, second;
        unpack_half_line(w + 64 * line + 32 * half, first, second);
        ONNXQ_UNROLL
        for (int i = 0; i < M; i++) {
          const uint8_t* const x = row[i] + k;
          const uint8_t* const next = kSteps == 2 && both ? x + kStep : x;
          __m256i& a = acc[i][low % V * 2 + half];
          a = D::dot4(a, broadcast4(low < V ? x : next), first);
          __m256i& c = acc[i][high % V * 2 + half];
          c = D::dot4(c, broadcast4(high < V ? x : next), second);
        }
      }
    }
  }
  ONNXQ_UNROLL
  for (int i = 0; i < M; i++) {
    ONNXQ_UNROLL
    for (int v = 0; v < 2 * V; v++) store256(b.acc + (i0 + i) * kPanel + kVector * v0 + kLane8 * v, acc[i][v]);
  }
}

template <class D>
void gemm4(const GemmBlock& b) {
  for (int i = 0; i < b.m; i++) {
    const bool two = i + 1 < b.m && b.vectors != 3;  // rows; with three vectors they do not fit the registers
    switch (b.vectors) {
      case 1: two ? gemm4_block<D, 2, 1>(b, i, 0) : gemm4_block<D, 1, 1>(b, i, 0); break;
      case 2: two ? gemm4_block<D, 2, 2>(b, i, 0) : gemm4_block<D, 1, 2>(b, i, 0); break;
      case 3: gemm4_block<D, 1, 3>(b, i, 0); break;
      default:
        if (two) {
          gemm4_block<D, 2, 2>(b, i, 0);
          gemm4_block<D, 2, 2>(b, i, 2);
        } else {
          gemm4_block<D, 1, 4>(b, i, 0);
        }
    }
    i += two;
  }
}

}  // namespace
}  // namespace onnxq
