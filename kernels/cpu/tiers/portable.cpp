// Kernels without intrinsics, for every CPU; the vectors are those of GCC and Clang, as wide as SSE2's and NEON's.
#include <type_traits>

#include "cpu/elementwise/tables.hpp"
#include "cpu/tiers/tier.hpp"

namespace onnxq {
namespace {

// --- GEMM -----------------------------------------------------------------------------------------------------------
//
// A product of two unsigned bytes fits 16 bits, and two adjacent products form a 32-bit number: high · 2^16 + low. The
// sum of these numbers and the sum of their high halves yield the sum of the low halves too, modulo 2^32. Weights are
// made unsigned by adding 128; the excess, 128 times the sum of the activations, is subtracted again.

using Words = uint16_t __attribute__((vector_size(16)));  // 4 values of k of 2 channels
using Lanes = uint32_t __attribute__((vector_size(16)));

constexpr int kRows = 16;
constexpr int kChunk = 16;    // steps whose weights are widened at a time: at most 8 KB
constexpr int kChannels = 8;  // of a row at a time: 8 vectors of sums

Words load_words(const uint16_t* p) {
  Words words;
  __builtin_memcpy(&words, p, sizeof(words));
  return words;
}

// Adds the products of some steps to 8 channels of a row. x: the 4 values of each step, twice.
void multiply(const uint16_t* x, const uint16_t* weights, int steps, ptrdiff_t stride, uint32_t excess, int32_t* acc) {
  Lanes all[4] = {}, high[4] = {};
  for (int step = 0; step < steps; step++, x += 2 * kStep, weights += stride) {
    const Words twice = load_words(x);
    for (int v = 0; v < 4; v++) {
      const auto products = reinterpret_cast<Lanes>(twice * load_words(weights + 8 * v));
      all[v] += products;
      high[v] += products >> 16;
    }
  }
  for (int v = 0; v < 4; v++) {
    const Lanes sums = all[v] - (high[v] << 16) + high[v];
    for (int c = 0; c < 2; c++) {
      const uint32_t sum = sums[2 * c] + sums[2 * c + 1] - excess;
      // Wraps as the vector instructions do; the final sum is proven to fit.
      acc[2 * v + c] = static_cast<int32_t>(static_cast<uint32_t>(acc[2 * v + c]) + sum);
    }
  }
}

void gemm(const GemmBlock& b) {
  const int n = b.vectors * kVector;
  alignas(64) uint16_t weights[kChunk * kStep * kPanel], x[kChunk * kStep * 2];
  for (int i = 0; i < b.m; i++)
    for (int j = 0; j < n; j++) b.acc[i * kPanel + j] = b.init[j];
  const int8_t* w = b.panel;
  for (int t = 0; t < b.tap_count; t++)
    for (int step = 0; step < b.steps; step += kChunk) {
      const int steps = b.steps - step < kChunk ? b.steps - step : kChunk;
      for (int k = 0; k < steps * kStep * n; k++) weights[k] = static_cast<uint16_t>(w[k] + 128);
      w += steps * kStep * n;
      for (int i = 0; i < b.m; i++) {
        const uint8_t* const from = b.rows[i] + b.taps[t] + ptrdiff_t{kStep} * step;
        uint32_t sum = 0;
        for (int k = 0; k < steps * kStep; k++) sum += from[k];
        for (int s = 0; s < steps; s++)
          for (int k = 0; k < 2 * kStep; k++) x[2 * kStep * s + k] = from[kStep * s + k % kStep];
        for (int j = 0; j < n; j += kChannels)
          multiply(x, weights + kStep * j, steps, kStep * n, 128 * sum, b.acc + i * kPanel + j);
      }
    }
}

// --- Epilogue -------------------------------------------------------------------------------------------------------

struct None {};  // the type of an absent residual

template <class Y, class R>
void epilogue_of(const EpilogueBlock& e) {
  const OutputRange range = e.range;
  const int32_t *const multiplier = e.multiplier, *const shift = e.shift;
  const auto* const residual_multiplier = e.residual_multiplier;
  const int64_t zero_point = e.residual_zero_point, scale = int64_t{1} << e.residual_shift;
  const int count = e.n;
  for (int i = 0; i < e.m; i++) {
    const int32_t* const acc = e.acc + i * kPanel;
    const auto* const residual = static_cast<const R*>(e.residual) + i * e.residual_stride;
    Y* const __restrict y = static_cast<Y*>(e.y) + i * e.y_stride;
    for (int n = 0; n < count; n++) {
      auto sum = static_cast<uint64_t>(int64_t{acc[n]} * multiplier[n]);
      if constexpr (!std::is_same_v<R, None>)  // unsigned: a term may overflow int64, the sum does not
        sum +=
            static_cast<uint64_t>((residual[n] - zero_point) * scale) * static_cast<uint64_t>(residual_multiplier[n]);
      y[n] = static_cast<Y>(finish(static_cast<int64_t>(sum), shift[n], range));
    }
  }
}

template <class Y>
void epilogue_to(const EpilogueBlock& e) {
  if (!e.residual) return epilogue_of<Y, None>(e);
  switch (e.residual_type) {
    case IntType::U8: return epilogue_of<Y, uint8_t>(e);
    case IntType::S8: return epilogue_of<Y, int8_t>(e);
    case IntType::S16: return epilogue_of<Y, int16_t>(e);
    default: return epilogue_of<Y, int32_t>(e);
  }
}

void epilogue_ordered(const EpilogueBlock& e) {
  switch (e.range.type) {
    case IntType::U8: return epilogue_to<uint8_t>(e);
    case IntType::S8: return epilogue_to<int8_t>(e);
    case IntType::S16: return epilogue_to<int16_t>(e);
    default: return epilogue_to<int32_t>(e);
  }
}

// Interleaved channels, from tiers that pass a block on to this one: put in order, row by row. Only depthwise
// convolutions interleave, and they have no residual.
void epilogue(const EpilogueBlock& e) {
  if (!e.interleaved) return epilogue_ordered(e);
  int32_t acc[kPanel], multiplier[kPanel], shift[kPanel];
  EpilogueBlock row = e;
  row.acc = acc, row.multiplier = multiplier, row.shift = shift;
  row.m = 1;
  for (int p = 0; p < kPanel; p++) {
    multiplier[interleave(p)] = e.multiplier[p];
    shift[interleave(p)] = e.shift[p];
  }
  for (int i = 0; i < e.m; i++) {
    for (int p = 0; p < kPanel; p++) acc[interleave(p)] = e.acc[i * kPanel + p];
    row.y = static_cast<uint8_t*>(e.y) + i * e.y_stride * size_of(e.range.type);
    epilogue_ordered(row);
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

// acc += x · w. The products fit 16 bits; the cast makes the compiler compute them as such.
void add_products(const uint8_t* __restrict x, const int8_t* __restrict w, int n, int32_t* __restrict acc) {
  for (int c = 0; c < n; c++) {
    const auto product = static_cast<int16_t>(x[c] * w[c]);
    acc[c] = static_cast<int32_t>(static_cast<uint32_t>(acc[c]) + static_cast<uint32_t>(product));
  }
}

void depthwise(const DepthwiseBlock& b) {
  alignas(64) int32_t acc[kPanel];
  for (int x = 0; x < b.width; x++)
    for (int channel = b.first; channel < b.last; channel += kPanel) {
      const int n = b.channels - channel < kPanel ? b.channels - channel : kPanel;
      for (int c = 0; c < n; c++) acc[c] = b.init[channel + c];
      for (int j = 0; j < b.kw; j++)
        for (int r = 0; r < b.kh; r++) {
          const uint8_t* from = b.columns[(x * b.stride + j * b.dilation) * b.kh + r] + channel;
          const int8_t* w = b.weights + (r * b.kw + j) * b.channels + channel;
          add_products(from, w, n, acc);
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
  alignas(64) int32_t acc[kRows * kPanel];
  const uint8_t* rows[kRows];
  for (const uint8_t*& row : rows) row = x;
  const ptrdiff_t tap = 0;
  constexpr int64_t kMacs = kRows * 64 * kPanel * kStep, kInner = 1'000'000 / kMacs;
  for (int64_t i = 0; i < repeats * kInner; i++) gemm({rows, &tap, kRows, 1, 64, 4, panel, init, acc, panel, 0});
  return repeats * kInner * kMacs;
}

}  // namespace

const Tier tiers::portable = {
    {0, kRows, kRows, kRows, kRows},
    gemm,
    epilogue,
    unpack4,
    nullptr,
    pack_depthwise,
    depthwise,
    false,
    elementwise_portable,
    peak,
};

}  // namespace onnxq
