// AVX-512 VNNI: vpdpbusd multiplies 4 unsigned by 4 signed bytes into each of 16 int32 lanes, without saturation.
//
// GEMM: a block of M rows by 16·V channels stays in registers. A step loads V vectors of weights and broadcasts 4 bytes
// of each row, M·V multiply-adds in all. M is chosen so that M·V accumulators, the weights and a broadcast fit 32
// registers and hide the instruction's latency of 5 cycles at two per cycle.
#include "cpu/elementwise/tables.hpp"
#include "cpu/tiers/zmm/depthwise.hpp"
#include "cpu/tiers/zmm/epilogue.hpp"
#include "cpu/tiers/zmm/multiply_add.hpp"

namespace onnxq {
namespace {

ONNXQ_INLINE int32_t load4(const uint8_t* p) {
  int32_t v;
  __builtin_memcpy(&v, p, 4);
  return v;
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
  const __m512i signs = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1));
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

// For few rows, where time goes into reading the weights. Two steps at a time, so that lines come in pairs for every V.
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
    const bool last = step + 1 == b.steps;  // an odd one: memory beyond the row must not be read
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

// 24 independent accumulators, as in the GEMM's widest block.
int64_t peak(int64_t repeats) {
  constexpr int kAccumulators = 24;
  constexpr int64_t kInner = 1'000'000 / (kAccumulators * 64);
  __m512i acc[kAccumulators];
  const __m512i x = _mm512_set1_epi8(3), w = _mm512_set1_epi8(2);
#pragma GCC unroll 24
  for (int k = 0; k < kAccumulators; k++) {
    acc[k] = _mm512_setzero_si512();
    __asm__ volatile("" : "+v"(acc[k]));  // otherwise they would be merged into one
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

const Tier tiers::avx512vnni = {
    {0, 10, 10, 8, 6}, gemm, epilogue, unpack4, gemm4, pack_depthwise, depthwise, true, elementwise_avx512, peak,
};

}  // namespace onnxq
