// int32 accumulators to 8-bit integers by dyadic rescaling (design: HAWQ-V3 section III).
#pragma once

#include <cstddef>
#include <cstdint>

namespace onnxq {

// One multiplier b and shift c for the whole tensor (channels = 1) or one per channel. 0 <= b < 2^31, 1 <= c <= 62.
struct Rescale {
  const int32_t* multiplier;
  const int32_t* shift;
  int32_t zero_point;
  int32_t qmin;
  int32_t qmax;
};

// sat(((x * b + 2^(c-1)) >> c) + zero_point): half rounds up, saturated from the 64-bit value.
// No step can overflow: |x * b| <= 2^62 - 2^31 and 2^(c-1) <= 2^61 stay below 2^63.
inline int32_t rescale(int32_t x, const Rescale& r, size_t channel) {
  const int32_t c = r.shift[channel];
  const int64_t scaled = (int64_t{x} * r.multiplier[channel] + (int64_t{1} << (c - 1))) >> c;
  const int64_t y = scaled + r.zero_point;
  return static_cast<int32_t>(y < r.qmin ? r.qmin : y > r.qmax ? r.qmax : y);
}

// x and y: [outer, channels, inner], contiguous. T: int8_t or uint8_t.
template <class T>
void requantize_reference(const int32_t* x, T* y, size_t outer, size_t channels, size_t inner, const Rescale& r);

}  // namespace onnxq
