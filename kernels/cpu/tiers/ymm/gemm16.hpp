// GEMM on 16-bit operands, for AVX2: vpmaddwd adds pairs of products of unsigned bytes by signed bytes exactly.
//
// Widening is kept out of the inner loop: activations are widened once for all channels, a chunk of k at a time, into a
// buffer from which 4 of them are broadcast; weights are widened by the shuffle port while they are loaded, which the
// products do not use. A register then holds 4 weights of each of 4 channels, so the sums of a channel are in two
// lanes, which are added at the end of a chunk. A step of 6 rows by 8 channels has 12 products, 12 additions and 2
// widenings, on three ports.
#pragma once

#include "cpu/tiers/ymm/gemm.hpp"

namespace onnxq {
namespace {

constexpr int kRows16 = 6;        // of a block
constexpr int kChunkSteps = 128;  // 6 KB of activations

struct Chunk {
  alignas(32) int16_t x[kRows16][kChunkSteps * kStep];
};

// `count` bytes, a multiple of 4, as int16.
ONNXQ_INLINE void widen(const uint8_t* from, int count, int16_t* to) {
  int k = 0;
  for (; k + 16 <= count; k += 16)
    store256(to + k, _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + k))));
  for (; k < count; k += kStep) {
    int32_t four;
    __builtin_memcpy(&four, from + k, kStep);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to + k), _mm_cvtepu8_epi16(_mm_cvtsi32_si128(four)));
  }
}

// Steps [first, first + count) of all taps together.
void widen_rows(const GemmBlock& b, int first, int count, Chunk& chunk) {
  int tap = first / b.steps, step = first % b.steps;
  for (int done = 0, n; done < count; done += n, step = 0, tap++) {
    n = b.steps - step < count - done ? b.steps - step : count - done;
    for (int i = 0; i < b.m; i++)
      widen(b.rows[i] + b.taps[tap] + kStep * step, kStep * n, chunk.x[i] + kStep * done);
  }
}

ONNXQ_INLINE __m256i broadcast_four(const int16_t* p) {
  int64_t v;
  __builtin_memcpy(&v, p, 8);
  return _mm256_set1_epi64x(v);
}

ONNXQ_INLINE __m256i widened_weights(const int8_t* p) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

// Adds M rows by 8 channels of a chunk to `from`, whose rows are from_step apart, into acc. w: the weights of the
// channels in the first step, stride bytes from step to step.
template <int M>
void multiply16(const Chunk& chunk, int steps, const int8_t* w, ptrdiff_t stride, const int32_t* from,
                ptrdiff_t from_step, int32_t* acc) {
  __m256i sum[M][2];  // two lanes for each of 4 channels
  ONNXQ_UNROLL
  for (int i = 0; i < M; i++) sum[i][0] = sum[i][1] = _mm256_setzero_si256();
  const int16_t* x = chunk.x[0];
  const int16_t* const end = x + kStep * steps;
  do {
    const __m256i low = widened_weights(w), high = widened_weights(w + 16);
    ONNXQ_UNROLL
    for (int i = 0; i < M; i++) {
      const __m256i four = broadcast_four(x + i * kChunkSteps * kStep);
      sum[i][0] = _mm256_add_epi32(sum[i][0], _mm256_madd_epi16(four, low));
      sum[i][1] = _mm256_add_epi32(sum[i][1], _mm256_madd_epi16(four, high));
    }
    ONNXQ_UNROLL
    for (int i = 0; i < M; i++) __asm__("" : "+x"(sum[i][0]), "+x"(sum[i][1]));  // otherwise GCC copies them
    w += stride;
    x += kStep;
  } while (x < end);
  ONNXQ_UNROLL
  for (int i = 0; i < M; i++) {
    const __m256i pairs = _mm256_permute4x64_epi64(_mm256_hadd_epi32(sum[i][0], sum[i][1]), 0xd8);
    store256(acc + i * kPanel, _mm256_add_epi32(pairs, load256(from + i * from_step)));
  }
}

template <int M>
void gemm16_rows(const GemmBlock& b) {
  const int total = b.tap_count * b.steps;
  const ptrdiff_t stride = ptrdiff_t{64} * b.vectors;
  const int passes = 2 * b.vectors;  // over a chunk, of 8 channels each
  const int8_t* next = b.prefetch;
  Chunk chunk;
  for (int first = 0; first < total; first += kChunkSteps) {
    const int steps = total - first < kChunkSteps ? total - first : kChunkSteps;
    widen_rows(b, first, steps, chunk);
    const int8_t* const w = b.panel + first * stride;
    for (int pass = 0, fetched = 0; pass < passes; pass++) {
      for (; fetched < steps * (pass + 1) / passes; fetched++, next += b.prefetch_stride)
        _mm_prefetch(next, _MM_HINT_T1);
      const int n = kLane8 * pass;
      multiply16<M>(chunk, steps, w + kStep * n, stride, first ? b.acc + n : b.init + n, first ? kPanel : 0, b.acc + n);
    }
  }
}

void gemm16(const GemmBlock& b) {
  switch (b.m) {
    case 1: return gemm16_rows<1>(b);
    case 2: return gemm16_rows<2>(b);
    case 3: return gemm16_rows<3>(b);
    case 4: return gemm16_rows<4>(b);
    case 5: return gemm16_rows<5>(b);
    default: return gemm16_rows<6>(b);
  }
}

}  // namespace
}  // namespace onnxq
