// Depthwise convolution of the tiers with 256-bit registers; see gemm.hpp.
//
// A column of up to 4 input pixels, 32 channels each, is interleaved byte by byte so that each int32 lane holds the 4
// rows of a channel: then one `dot` multiplies a whole column. Columns are kept in a small buffer, as several output
// pixels share them. Taller kernels take their rows in fours, with zero weights after the last.
//
// Unpacking works within 128-bit lanes: register v of a column holds channels 4v to 4v+3 and 16+4v to 16+4v+3.
//
// A tier adds to class D:
//   kPackedBytes             size in memory of a register of weights
//   W load_weights(const int8_t*)
//   store_weight(int8_t* to, int lane, int row, int8_t)   stores one of them
#pragma once

#include "cpu/tiers/ymm/epilogue.hpp"

namespace onnxq {
namespace {

constexpr int kChannels = 32;  // at a time
constexpr int kPixels = 8;     // output pixels between two epilogues
constexpr int kColumns = 32;   // in the buffer
constexpr int kGroup = 4;      // output pixels per loaded weight

ONNXQ_INLINE __m256i load_channels(const uint8_t* p, int count) {
  if (count >= kChannels) return load256(p);
  const __m128i low = load_bytes(p, count);
  return _mm256_inserti128_si256(_mm256_castsi128_si256(low),
                                 count > 16 ? load_bytes(p + 16, count - 16) : _mm_setzero_si128(), 1);
}

template <class D>
ONNXQ_INLINE void load_column(const uint8_t* const* rows, int n, int channel, int count, typename D::X* to) {
  const __m256i zero = _mm256_setzero_si256();
  const __m256i a = load_channels(rows[0] + channel, count);
  const __m256i b = n > 1 ? load_channels(rows[1] + channel, count) : zero;
  const __m256i c = n > 2 ? load_channels(rows[2] + channel, count) : zero;
  const __m256i d = n > 3 ? load_channels(rows[3] + channel, count) : zero;
  const __m256i ab_low = _mm256_unpacklo_epi8(a, b), ab_high = _mm256_unpackhi_epi8(a, b);
  const __m256i cd_low = _mm256_unpacklo_epi8(c, d), cd_high = _mm256_unpackhi_epi8(c, d);
  to[0] = D::expand(_mm256_unpacklo_epi16(ab_low, cd_low));
  to[1] = D::expand(_mm256_unpackhi_epi16(ab_low, cd_low));
  to[2] = D::expand(_mm256_unpacklo_epi16(ab_high, cd_high));
  to[3] = D::expand(_mm256_unpackhi_epi16(ab_high, cd_high));
}

// A register of accumulators, in the order of the columns, from and to memory in the order of the channels.
ONNXQ_INLINE __m256i load_lanes(const int32_t* p) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
                                 _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 16)), 1);
}

ONNXQ_INLINE void store_lanes(int32_t* p, __m256i v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(v));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 16), _mm256_extracti128_si256(v, 1));
}

struct Window {              // of columns in the buffer
  int pixel_step, tap_step;  // columns from an output pixel, or a tap, to the next
  int taps;
};

// Adds the products of P output pixels. from: where their sums so far are; from_step 0: the same for all of them.
template <class D, int P>
ONNXQ_INLINE void add_taps(const typename D::X (*columns)[4], const Window& window, const int8_t* weights,
                           ptrdiff_t stride, const int32_t* from, int from_step, int32_t* acc) {
  ONNXQ_UNROLL
  for (int v = 0; v < 4; v++) {
    __m256i sum[P];
    ONNXQ_UNROLL
    for (int p = 0; p < P; p++) sum[p] = load_lanes(from + p * from_step + 4 * v);
    const typename D::X(*column)[4] = columns;
    const int8_t* w = weights + v * D::kPackedBytes;
    for (int j = 0; j < window.taps; j++, column += window.tap_step, w += stride) {
      const typename D::W weight = D::load_weights(w);
      ONNXQ_UNROLL
      for (int p = 0; p < P; p++) {
        sum[p] = D::dot(sum[p], column[p * window.pixel_step][v], weight);
        __asm__("" : "+x"(sum[p]));  // otherwise GCC copies them back and forth
      }
    }
    ONNXQ_UNROLL
    for (int p = 0; p < P; p++) store_lanes(acc + p * kPanel + 4 * v, sum[p]);
  }
}

template <class D>
void depthwise_channels(const DepthwiseBlock& b, int channel, const int8_t* weights) {
  alignas(64) int32_t acc[kPixels * kPanel];
  typename D::X columns[kColumns][4];
  const int count = b.channels - channel < kChannels ? b.channels - channel : kChannels;
  const int quads = (b.kh + 3) / 4;
  const ptrdiff_t tap_bytes = 4 * D::kPackedBytes;
  // As many pixels and taps at a time as the buffer holds columns for.
  const int most = b.stride < kColumns ? (kColumns - 1) / b.stride + 1 : 1;
  const int pixels = most < kPixels ? most : kPixels;
  const int room = (kColumns - 1 - (pixels - 1) * b.stride) / b.dilation + 1;
  const int taps = room < b.kw ? room : b.kw;
  for (int x0 = 0; x0 < b.width; x0 += pixels) {
    const int m = b.width - x0 < pixels ? b.width - x0 : pixels;
    const int32_t* from = b.init + channel;
    int from_step = 0;
    for (int q = 0; q < quads; q++)
      for (int j0 = 0; j0 < b.kw; j0 += taps) {
        const Window window = {b.stride, b.dilation, b.kw - j0 < taps ? b.kw - j0 : taps};
        const int needed = (m - 1) * b.stride + (window.taps - 1) * b.dilation + 1;
        const uint8_t* const* rows = b.columns + ptrdiff_t{x0 * b.stride + j0 * b.dilation} * b.kh + 4 * q;
        for (int c = 0; c < needed; c++)
          load_column<D>(rows + ptrdiff_t{c} * b.kh, b.kh - 4 * q, channel, count, columns[c]);
        const int8_t* w = weights + (q * b.kw + j0) * tap_bytes;
        int i = 0;
        for (; i + kGroup <= m; i += kGroup)
          add_taps<D, kGroup>(columns + i * b.stride, window, w, tap_bytes, from + i * from_step, from_step,
                              acc + i * kPanel);
        for (; i < m; i++)
          add_taps<D, 1>(columns + i * b.stride, window, w, tap_bytes, from + i * from_step, from_step,
                         acc + i * kPanel);
        from = acc;
        from_step = kPanel;
      }
    EpilogueBlock e = b.epilogue;
    e.acc = acc;
    e.m = m;
    e.n = count;
    e.multiplier += channel;
    e.shift += channel;
    e.y = static_cast<uint8_t*>(e.y) + (x0 * e.y_stride + channel) * size_of(e.range.type);
    epilogue(e);
  }
}

template <class D>
void depthwise(const DepthwiseBlock& b) {
  const ptrdiff_t bytes = ptrdiff_t{4} * D::kPackedBytes * ((b.kh + 3) / 4) * b.kw;
  for (int channel = b.first; channel < b.last; channel += kChannels)
    depthwise_channels<D>(b, channel, b.weights + channel / kChannels * bytes);
}

template <class D>
size_t pack_depthwise(const int8_t* weights, int kh, int kw, int channels, int8_t* packed) {
  const int groups = (channels + kChannels - 1) / kChannels, quads = (kh + 3) / 4;
  const size_t bytes =
      static_cast<size_t>(groups) * static_cast<size_t>(quads) * static_cast<size_t>(kw) * 4 * D::kPackedBytes;
  if (!packed) return bytes;
  for (int g = 0; g < groups; g++)
    for (int q = 0; q < quads; q++)
      for (int j = 0; j < kw; j++)
        for (int v = 0; v < 4; v++, packed += D::kPackedBytes)
          for (int lane = 0; lane < kLane8; lane++)
            for (int r = 0; r < 4; r++) {
              const int channel = g * kChannels + lane / 4 * 16 + 4 * v + lane % 4, row = 4 * q + r;
              const bool inside = channel < channels && row < kh;
              D::store_weight(packed, lane, r, inside ? weights[(channel * kh + row) * kw + j] : int8_t{0});
            }
  return bytes;
}

}  // namespace
}  // namespace onnxq
