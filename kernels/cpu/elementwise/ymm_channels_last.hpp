// Channels-last of bytes with 256-bit registers. Each file of an instruction set that includes this compiles its own
// copy: everything is in an unnamed namespace.
//
// A register holds 32 positions of one channel. Bytes are interleaved within its two lanes of 16 positions, so that the
// low lanes of the results are the first 16 positions, and the high lanes the next.
#pragma once

#include <immintrin.h>

#include "cpu/common/inline.hpp"
#include "cpu/elementwise/plain.hpp"

namespace onnxq {
namespace {

constexpr int kPlaces = 32, kLane = 16;

ONNXQ_INLINE __m256i load_places(const uint8_t* x) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)); }
ONNXQ_INLINE void store_low(uint8_t* y, __m256i v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(y), _mm256_castsi256_si128(v));
}
ONNXQ_INLINE void store_high(uint8_t* y, __m256i v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(y), _mm256_extracti128_si256(v, 1));
}

// V channels, 2, 4, 8 or 16. The address of a byte is a number with the bits of its channel, then those of its
// position. A round rotates the highest bit to the lowest; after as many rounds as a channel has bits, the position
// comes first.
template <int V>
ONNXQ_INLINE void interleave_channels(__m256i (&v)[V]) {
  ONNXQ_UNROLL
  for (int round = 1; round < V; round *= 2) {
    __m256i w[V];
    ONNXQ_UNROLL
    for (int i = 0; i < V / 2; i++) {
      w[2 * i] = _mm256_unpacklo_epi8(v[i], v[i + V / 2]);
      w[2 * i + 1] = _mm256_unpackhi_epi8(v[i], v[i + V / 2]);
    }
    ONNXQ_UNROLL
    for (int i = 0; i < V; i++) v[i] = w[i];
  }
}

// 3 channels. Byte j of result k is of channel (j + k) mod 3, position (16·k + j) / 3: the three results move different
// bytes of a channel to different j, so that one shuffle serves them all.
ONNXQ_INLINE void interleave_channels(__m256i (&v)[3]) {
  alignas(16) static const uint8_t kShuffle[3][kLane] = {{0, 11, 6, 1, 12, 7, 2, 13, 8, 3, 14, 9, 4, 15, 10, 5},
                                                         {5, 0, 11, 6, 1, 12, 7, 2, 13, 8, 3, 14, 9, 4, 15, 10},
                                                         {10, 5, 0, 11, 6, 1, 12, 7, 2, 13, 8, 3, 14, 9, 4, 15}};
  alignas(16) static const int8_t kThird[2][kLane] = {{0, -1, 0, 0, -1, 0, 0, -1, 0, 0, -1, 0, 0, -1, 0, 0},
                                                      {0, 0, -1, 0, 0, -1, 0, 0, -1, 0, 0, -1, 0, 0, -1, 0}};
  const auto both = [](const void* p) {
    return _mm256_broadcastsi128_si256(_mm_load_si128(static_cast<const __m128i*>(p)));
  };
  const __m256i second = both(kThird[0]), third = both(kThird[1]);  // byte of every three
  __m256i s[3];
  ONNXQ_UNROLL
  for (int c = 0; c < 3; c++) s[c] = _mm256_shuffle_epi8(v[c], both(kShuffle[c]));
  ONNXQ_UNROLL
  for (int k = 0; k < 3; k++)
    v[k] = _mm256_blendv_epi8(_mm256_blendv_epi8(s[k], s[(k + 1) % 3], second), s[(k + 2) % 3], third);
}

// C channels in all: what a register then holds is contiguous in y. Returns how many positions are done.
template <int C>
ONNXQ_INLINE int64_t few_channels(const uint8_t* x, ptrdiff_t stride, uint8_t* y, int64_t n) {
  int64_t i = 0;
  for (; i + kPlaces <= n; i += kPlaces) {
    __m256i v[C];
    ONNXQ_UNROLL
    for (int c = 0; c < C; c++) v[c] = load_places(x + c * stride + i);
    interleave_channels(v);
    uint8_t* const to = y + i * C;
    ONNXQ_UNROLL
    for (int c = 0; c < C; c++) {
      store_low(to + kLane * c, v[c]);
      store_high(to + kLane * (C + c), v[c]);
    }
  }
  return i;
}

// `count` channels (1 to 16) of 32 positions. 16 bytes are written for each position, in order: with fewer channels the
// next position overwrites the excess.
ONNXQ_INLINE void channel_block(const uint8_t* x, ptrdiff_t stride, int64_t count, uint8_t* y, int64_t channels) {
  __m256i v[kLane];
  ONNXQ_UNROLL
  for (int c = 0; c < kLane; c++) v[c] = c < count ? load_places(x + c * stride) : _mm256_setzero_si256();
  interleave_channels(v);
  ONNXQ_UNROLL
  for (int i = 0; i < kLane; i++) store_low(y + i * channels, v[i]);
  ONNXQ_UNROLL
  for (int i = 0; i < kLane; i++) store_high(y + (kLane + i) * channels, v[i]);
}

// Fewer than 16 channels. Returns how many positions are done.
static int64_t some_channels(const uint8_t* x, ptrdiff_t stride, int64_t channels, uint8_t* y, int64_t n) {
  const int64_t end = n * channels - kLane;  // the last place where 16 bytes may be written
  int64_t i = 0;
  for (; (i + kPlaces - 1) * channels <= end; i += kPlaces)
    channel_block(x + i, stride, channels, y + i * channels, channels);
  return i;
}

// 16 channels or more, n at least 32. The last block of channels and that of positions may overlap the one before.
static void many_channels(const uint8_t* x, ptrdiff_t stride, int64_t channels, uint8_t* y, int64_t n) {
  for (int64_t at = 0; at < n; at += kPlaces) {
    const int64_t i = at + kPlaces <= n ? at : n - kPlaces;
    for (int64_t next = 0; next < channels; next += kLane) {
      const int64_t c = next + kLane <= channels ? next : channels - kLane;
      channel_block(x + c * stride + i, stride, kLane, y + i * channels + c, channels);
    }
  }
}

static void ymm_channels_last(const uint8_t* x, ptrdiff_t stride, int64_t channels, uint8_t* y, int64_t n) {
  int64_t done = 0;
  switch (channels) {
    case 2: done = few_channels<2>(x, stride, y, n); break;
    case 3: done = few_channels<3>(x, stride, y, n); break;
    case 4: done = few_channels<4>(x, stride, y, n); break;
    case 8: done = few_channels<8>(x, stride, y, n); break;
    default:
      if (channels >= kLane && n >= kPlaces) return many_channels(x, stride, channels, y, n);
      if (channels < kLane) done = some_channels(x, stride, channels, y, n);
  }
  if (done < n) plain_channels_last(x + done, stride, channels, y + done * channels, n - done);
}

}  // namespace
}  // namespace onnxq
