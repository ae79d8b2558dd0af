// Depthwise convolution of the AVX-512 VNNI tier. Included by avx512vnni.cpp only.
//
// A column of up to 4 input pixels, 64 channels each, is interleaved byte by byte so that each int32 lane holds the 4
// rows of a channel: then vpdpbusd multiplies a whole column at once. The lanes are in the order of `interleave`;
// packing the results to bytes undoes it. Taller kernels take several columns ("quads"), with zero weights after the
// last row.
#pragma once

#include "cpu/tiers/zmm/epilogue.hpp"
#include "cpu/tiers/zmm/multiply_add.hpp"

namespace onnxq {
namespace {

// 64 channels, or 32 where there are no more: the instructions and the order of the lanes are the same, only without
// the upper halves of the registers.
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
  static V load(const uint8_t* p, __mmask64 mask) { return _mm256_maskz_loadu_epi8(static_cast<__mmask32>(mask), p); }
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
  return {
      {R::low16(ab_low, cd_low), R::high16(ab_low, cd_low), R::low16(ab_high, cd_high), R::high16(ab_high, cd_high)}};
}

// Output pixels between two epilogues: rows of 7, 14, 28, 56 and 112 leave no remainder.
constexpr int kPixels = 28;

ONNXQ_INLINE void finish_pixels(const DepthwiseBlock& b, const int32_t* acc, int channel, int x, int count) {
  EpilogueBlock e = b.epilogue;
  e.acc = acc;
  e.m = count;
  e.n = b.channels - channel < kPanel ? b.channels - channel : kPanel;
  e.multiplier += channel;
  e.shift += channel;
  const ptrdiff_t at = x * e.y_stride + channel;
  e.y = static_cast<uint8_t*>(e.y) + at * size_of(e.range.type);
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
  for (int channel = b.first; channel < b.last; channel += kPanel) {
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

}  // namespace
}  // namespace onnxq
