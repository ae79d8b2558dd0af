// The dyadic rescale b / 2^c (HAWQ-V3 section III), the definition in C++; onnxq/numeric/dyadic.py is the one in
// Python.
#pragma once

#include <cstdint>

namespace onnxq {

enum class IntType : int { U8, S8, S16, S32 };

// y saturates to [qmin, qmax], which lies in its type and also carries a fused ReLU or Clip.
struct OutputRange {
  IntType type;
  int32_t zero_point;
  int32_t qmin;
  int32_t qmax;
};

// sat(((sum + 2^(c-1)) >> c) + zero_point): half rounds up, saturated from the 64-bit value. `sum` is Σ term·b;
// lowering has proven |sum| + 2^(c-1) < 2^63. Unsigned additions: intermediate results may wrap, the final one does
// not.
static inline int32_t finish(int64_t sum, int32_t c, const OutputRange& y) {
  const uint64_t rounded = static_cast<uint64_t>(sum) + (uint64_t{1} << (c - 1));
  const int64_t scaled = static_cast<int64_t>(rounded) >> c;
  const int64_t shifted =
      static_cast<int64_t>(static_cast<uint64_t>(scaled) + static_cast<uint64_t>(int64_t{y.zero_point}));
  return static_cast<int32_t>(shifted < y.qmin ? y.qmin : shifted > y.qmax ? y.qmax : shifted);
}

// a + b in 32 bits, wrapping as the kernels' accumulators do: the true sum is known to fit.
static inline int32_t add_wrapping(int32_t a, int64_t b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
}

static inline int32_t load(const void* data, IntType type, int64_t i) {
  switch (type) {
    case IntType::U8: return static_cast<const uint8_t*>(data)[i];
    case IntType::S8: return static_cast<const int8_t*>(data)[i];
    case IntType::S16: return static_cast<const int16_t*>(data)[i];
    default: return static_cast<const int32_t*>(data)[i];
  }
}

static inline void store(void* data, IntType type, int64_t i, int32_t value) {
  switch (type) {
    case IntType::U8: static_cast<uint8_t*>(data)[i] = static_cast<uint8_t>(value); break;
    case IntType::S8: static_cast<int8_t*>(data)[i] = static_cast<int8_t>(value); break;
    case IntType::S16: static_cast<int16_t*>(data)[i] = static_cast<int16_t>(value); break;
    default: static_cast<int32_t*>(data)[i] = value;
  }
}

static inline int64_t size_of(IntType type) { return type == IntType::S32 ? 4 : type == IntType::S16 ? 2 : 1; }
static inline bool is_byte(IntType type) { return type == IntType::U8 || type == IntType::S8; }

// The smallest and the largest value of a type.
static inline int32_t least_of(IntType type) {
  return type == IntType::U8 ? 0 : type == IntType::S8 ? INT8_MIN : type == IntType::S16 ? INT16_MIN : INT32_MIN;
}

static inline int32_t most_of(IntType type) {
  return type == IntType::U8 ? UINT8_MAX : type == IntType::S8 ? INT8_MAX : type == IntType::S16 ? INT16_MAX : INT32_MAX;
}

}  // namespace onnxq
