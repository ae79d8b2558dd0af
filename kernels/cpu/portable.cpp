// The kernels in plain C++: what every other tier must equal.
#include "cpu/portable.hpp"

namespace onnxq {
namespace {

void gemm(const GemmBlock& b) {
  const int n = b.vectors * kVector;
  for (int i = 0; i < b.m; i++) {
    int32_t* acc = b.acc + i * kPanel;
    for (int j = 0; j < n; j++) acc[j] = b.init[j];
    const int8_t* w = b.panel;
    for (int t = 0; t < b.tap_count; t++) {
      const uint8_t* x = b.rows[i] + b.taps[t];
      for (int s = 0; s < b.steps; s++, x += kStep, w += n * kStep)
        for (int j = 0; j < n; j++) {
          const int32_t dot = x[0] * w[4 * j] + x[1] * w[4 * j + 1] + x[2] * w[4 * j + 2] + x[3] * w[4 * j + 3];
          // Wraps as the vector instructions do; the final sum is known to fit.
          acc[j] = static_cast<int32_t>(static_cast<uint32_t>(acc[j]) + static_cast<uint32_t>(dot));
        }
    }
  }
}

void epilogue(const EpilogueBlock& e) {
  for (int i = 0; i < e.m; i++)
    for (int n = 0; n < e.n; n++) {
      int64_t sum = int64_t{e.acc[i * kPanel + n]} * e.multiplier[n];
      if (e.residual)
        sum += (int64_t{load(e.residual, e.residual_type, i * e.residual_stride + n)} - e.residual_zero_point) *
               (int64_t{1} << e.residual_shift) * e.residual_multiplier[n];
      store(e.y, e.range.type, i * e.y_stride + n, finish(sum, e.shift[n], e.range));
    }
}

void unpack4(const uint8_t* src, int8_t* dst, size_t lines) {
  for (size_t line = 0; line < lines; line++, src += 64, dst += 128)
    for (int i = 0; i < 64; i++) {
      const int low = src[i] & 15, high = src[i] >> 4;
      dst[i] = static_cast<int8_t>(low < 8 ? low : low - 16);
      dst[64 + i] = static_cast<int8_t>(high < 8 ? high : high - 16);
    }
}

// Weights as [kh][kw][channels].
size_t pack_depthwise(const int8_t* weights, int kh, int kw, int channels, int8_t* packed) {
  const size_t bytes = static_cast<size_t>(kh) * static_cast<size_t>(kw) * static_cast<size_t>(channels);
  if (!packed) return bytes;
  for (int k = 0; k < kh * kw; k++)
    for (int c = 0; c < channels; c++) *packed++ = weights[c * kh * kw + k];
  return bytes;
}

void depthwise(const DepthwiseBlock& b) {
  alignas(64) int32_t acc[kPanel];
  for (int x = 0; x < b.width; x++)
    for (int channel = 0; channel < b.channels; channel += kPanel) {
      const int n = b.channels - channel < kPanel ? b.channels - channel : kPanel;
      for (int c = 0; c < n; c++) acc[c] = b.init[channel + c];
      for (int j = 0; j < b.kw; j++)
        for (int r = 0; r < b.kh; r++) {
          const uint8_t* from = b.columns[(x * b.stride + j * b.dilation) * b.kh + r] + channel;
          const int8_t* w = b.weights + (r * b.kw + j) * b.channels + channel;
          for (int c = 0; c < n; c++)
            acc[c] = static_cast<int32_t>(static_cast<uint32_t>(acc[c]) + static_cast<uint32_t>(from[c] * w[c]));
        }
      EpilogueBlock e = b.epilogue;
      e.acc = acc;
      e.m = 1;
      e.n = n;
      e.multiplier += channel;
      e.shift += channel;
      const int64_t at = x * e.y_stride + channel;
      e.y = static_cast<uint8_t*>(e.y) + at * size_of(e.range.type);
      epilogue(e);
    }
}

int64_t peak(int64_t repeats) {
  alignas(64) static const int8_t panel[64 * kPanel * kStep] = {};
  alignas(64) static const uint8_t x[64 * kStep] = {};
  alignas(64) static const int32_t init[kPanel] = {};
  alignas(64) int32_t acc[4 * kPanel];
  const uint8_t* rows[4] = {x, x, x, x};
  const ptrdiff_t tap = 0;
  constexpr int64_t kMacs = 4 * 64 * kPanel * kStep, kInner = 1'000'000 / kMacs;
  for (int64_t i = 0; i < repeats * kInner; i++) gemm({rows, &tap, 4, 1, 64, 4, panel, init, acc, panel});
  return repeats * kInner * kMacs;
}

}  // namespace

const Tier kPortable = {"portable", [] { return true; }, {0, 4, 4, 4, 4}, gemm,      epilogue, unpack4,
                        nullptr,    pack_depthwise,      depthwise,       false, peak};

}  // namespace onnxq
