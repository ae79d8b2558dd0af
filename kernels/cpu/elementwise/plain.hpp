// The inner loops in plain C++. Everything is static: each file that includes this compiles its own copy for its
// instruction set, and the compiler vectorizes it.
#pragma once

#include <algorithm>

#include "cpu/elementwise/elementwise.hpp"
#include "cpu/tiers/tier.hpp"

namespace onnxq {
namespace {

// Calls f with a value of the C++ type that `type` stands for.
template <class F>
static inline void with_type(IntType type, const F& f) {
  switch (type) {
    case IntType::U8: return f(uint8_t{});
    case IntType::S8: return f(int8_t{});
    case IntType::S16: return f(int16_t{});
    default: return f(int32_t{});
  }
}

static inline int64_t wrap_multiply(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
}

static inline int64_t wrap_add(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
}

// Two statements: from one the compiler makes branches, which random values mispredict.
static inline int32_t saturated(int64_t value, const OutputRange& range) {
  const int64_t low = range.qmin, high = range.qmax;
  value = value < low ? low : value;
  value = value > high ? high : value;
  return static_cast<int32_t>(value);
}

template <class A, class B, class Y>
static inline void sum_of_types(const SumRow& r, const A* a, const B* b, Y* y) {
  const OutputRange range = r.range;
  if (r.uniform) {
    const int64_t a_multiplier = *r.a_multiplier, b_multiplier = b ? *r.b_multiplier : 0, offset = *r.offset;
    const int32_t shift = *r.shift;
    for (int64_t i = 0; i < r.n; i++) {
      int64_t sum = wrap_add(wrap_multiply(a[i], a_multiplier), offset);
      if (b) sum = wrap_add(sum, wrap_multiply(b[i], b_multiplier));
      y[i] = static_cast<Y>(saturated((sum >> shift) + range.zero_point, range));
    }
    return;
  }
  for (int64_t i = 0; i < r.n; i++) {
    int64_t sum = wrap_add(wrap_multiply(a[i], r.a_multiplier[i]), r.offset[i]);
    if (b) sum = wrap_add(sum, wrap_multiply(b[i], r.b_multiplier[i]));
    y[i] = static_cast<Y>(saturated((sum >> r.shift[i]) + range.zero_point, range));
  }
}

[[maybe_unused]] static void plain_sum(const SumRow& r) {
  with_type(r.range.type, [&](auto y) {
    with_type(r.a_type, [&](auto a) {
      const auto* from_a = static_cast<const decltype(a)*>(r.a);
      auto* to = static_cast<decltype(y)*>(r.y);
      if (!r.b) return sum_of_types(r, from_a, static_cast<const uint8_t*>(nullptr), to);
      with_type(r.b_type, [&](auto b) { sum_of_types(r, from_a, static_cast<const decltype(b)*>(r.b), to); });
    });
  });
}

template <class A, class B, class Y>
static inline void byte_sum_of_types(const ByteSum& sum, const A* a, const B* b, Y* y, int64_t n) {
  const ByteSum s = sum;  // a copy, which y cannot alias
  const int32_t zero_point = s.range.zero_point, qmin = s.range.qmin, qmax = s.range.qmax;
  for (int64_t i = 0; i < n; i++) {
    const int32_t high = a[i] * s.a_high + b[i] * s.b_high + s.high;
    const int32_t low = a[i] * s.a_low + b[i] * s.b_low + s.low;
    int32_t value = ((high + (low >> 16)) >> s.shift) + zero_point;
    value = value < qmin ? qmin : value;
    value = value > qmax ? qmax : value;
    y[i] = static_cast<Y>(value);
  }
}

[[maybe_unused]] static void plain_byte_sum(const ByteSum& s, const void* a, const void* b, void* y, int64_t n) {
  const auto with_sign = [](bool is_signed, const auto& f) { is_signed ? f(int8_t{}) : f(uint8_t{}); };
  with_sign(s.range.type == IntType::S8, [&](auto c) {
    with_sign(s.a_signed, [&](auto p) {
      with_sign(s.b_signed, [&](auto q) {
        byte_sum_of_types(s, static_cast<const decltype(p)*>(a), static_cast<const decltype(q)*>(b),
                          static_cast<decltype(c)*>(y), n);
      });
    });
  });
}

template <class A, class B, class Y>
static inline void product_of_types(const ProductRow& row, const A* a, const B* b, Y* y) {
  const ProductRow r = row;  // a copy, which y cannot alias
  const OutputRange range = r.range;
  const int64_t half = int64_t{1} << (r.shift - 1);
  for (int64_t i = 0; i < r.n; i++) {
    const int32_t product = (a[i] - r.a_zero_point) * (b[i] - r.b_zero_point);
    const int64_t sum = int64_t{product} * r.multiplier + half;
    y[i] = static_cast<Y>(saturated((sum >> r.shift) + range.zero_point, range));
  }
}

[[maybe_unused]] static void plain_product(const ProductRow& r) {
  const auto with_sign = [](IntType type, const auto& f) { type == IntType::S8 ? f(int8_t{}) : f(uint8_t{}); };
  with_type(r.range.type, [&](auto y) {
    with_sign(r.a_type, [&](auto a) {
      with_sign(r.b_type, [&](auto b) {
        product_of_types(r, static_cast<const decltype(a)*>(r.a), static_cast<const decltype(b)*>(r.b),
                         static_cast<decltype(y)*>(r.y));
      });
    });
  });
}

[[maybe_unused]] static void plain_lookup(const uint8_t* table, const uint8_t* x, uint8_t* y, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = table[x[i]];
}

// C of the `channels` of each position.
template <int C>
static inline void move_channels(const uint8_t* x, ptrdiff_t stride, int64_t channels, uint8_t* y, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    uint8_t place[C];  // all read before y is written: the compiler must assume that y aliases x
    for (int c = 0; c < C; c++) place[c] = x[c * stride + i];
    for (int c = 0; c < C; c++) y[i * channels + c] = place[c];
  }
}

[[maybe_unused]] static void plain_channels_last(const uint8_t* x, ptrdiff_t stride, int64_t channels, uint8_t* y,
                                                 int64_t n) {
  constexpr int64_t kBlock = 64;  // y stays in the first-level cache until the last channel
  if (channels == 3) return move_channels<3>(x, stride, 3, y, n);
  for (int64_t i = 0; i < n; i += kBlock) {
    const int64_t size = n - i < kBlock ? n - i : kBlock;
    int64_t c = 0;
    for (; c + 4 <= channels; c += 4)
      move_channels<4>(x + c * stride + i, stride, channels, y + i * channels + c, size);
    for (; c < channels; c++) move_channels<1>(x + c * stride + i, stride, channels, y + i * channels + c, size);
  }
}

template <class T>
static inline void max_rows_of_type(const T* x, ptrdiff_t stride, int64_t count, T* y, int64_t n) {
  constexpr int64_t kBlock = 256;  // fits registers or the first-level cache
  for (int64_t i0 = 0; i0 < n; i0 += kBlock) {
    const int64_t size = n - i0 < kBlock ? n - i0 : kBlock;
    T best[kBlock];
    for (int64_t i = 0; i < size; i++) best[i] = x[i0 + i];
    for (int64_t k = 1; k < count; k++) {
      const T* const row = x + k * stride + i0;
      for (int64_t i = 0; i < size; i++) best[i] = best[i] > row[i] ? best[i] : row[i];
    }
    for (int64_t i = 0; i < size; i++) y[i0 + i] = best[i];
  }
}

[[maybe_unused]] static void plain_max_rows(const void* x, IntType type, ptrdiff_t stride, int64_t count, void* y,
                                            int64_t n) {
  with_type(type, [&](auto t) {
    max_rows_of_type(static_cast<const decltype(t)*>(x), stride, count, static_cast<decltype(t)*>(y), n);
  });
}

template <class T>
static inline void sum_rows_of_type(const T* x, ptrdiff_t stride, int64_t count, int32_t init, int32_t* acc,
                                    int64_t n) {
  constexpr int64_t kBlock = 256;
  for (int64_t i0 = 0; i0 < n; i0 += kBlock) {
    const int64_t size = n - i0 < kBlock ? n - i0 : kBlock;
    uint32_t sum[kBlock];
    for (int64_t i = 0; i < size; i++) sum[i] = static_cast<uint32_t>(init);
    for (int64_t k = 0; k < count; k++) {
      const T* const row = x + k * stride + i0;
      for (int64_t i = 0; i < size; i++) sum[i] += static_cast<uint32_t>(int32_t{row[i]});
    }
    for (int64_t i = 0; i < size; i++) acc[i0 + i] = static_cast<int32_t>(sum[i]);
  }
}

[[maybe_unused]] static void plain_sum_rows(const void* x, IntType type, ptrdiff_t stride, int64_t count, int32_t init,
                                            int32_t* acc, int64_t n) {
  with_type(type, [&](auto t) {
    const auto* const from = static_cast<const decltype(t)*>(x);
    if (n != 1 || stride != 1) return sum_rows_of_type(from, stride, count, init, acc, n);
    auto sum = static_cast<uint32_t>(init);  // contiguous values
    for (int64_t k = 0; k < count; k++) sum += static_cast<uint32_t>(int32_t{from[k]});
    *acc = static_cast<int32_t>(sum);
  });
}

template <class T>
static inline Moments moments_of_type(const T* x, int32_t zero_point, int32_t* centred, int64_t n) {
  // In 32 bits: the squares of 2^15 values of 8 bits add up to less than 2^32.
  int32_t sum = 0;
  uint32_t squares = 0;
  for (int64_t i = 0; i < n; i++) {
    const int32_t value = x[i] - zero_point;
    centred[i] = value;
    sum += value;
    squares += static_cast<uint32_t>(value * value);
  }
  return {sum, squares};
}

template <class T>
static inline Moments limited_moments(const T* x, int32_t zero_point, int32_t* centred, int64_t n) {
  const int64_t lowest = int64_t{zero_point} - 32768, highest = int64_t{zero_point} + 32767;
  const auto low = static_cast<int32_t>(lowest < INT32_MIN ? INT32_MIN : lowest);
  const auto high = static_cast<int32_t>(highest > INT32_MAX ? INT32_MAX : highest);
  int32_t sum = 0;
  int64_t squares = 0;
  for (int64_t i = 0; i < n; i++) {
    int32_t value = x[i] < low ? low : int32_t{x[i]};
    value = (value > high ? high : value) - zero_point;
    centred[i] = value;
    sum += value;
    squares += value * value;
  }
  return {sum, squares};
}

[[maybe_unused]] static Moments plain_moments(const void* x, IntType type, int32_t zero_point, int32_t* centred,
                                              int64_t n) {
  switch (type) {
    case IntType::U8: return moments_of_type(static_cast<const uint8_t*>(x), zero_point, centred, n);
    case IntType::S8: return moments_of_type(static_cast<const int8_t*>(x), zero_point, centred, n);
    case IntType::S16: return limited_moments(static_cast<const int16_t*>(x), zero_point, centred, n);
    default: return limited_moments(static_cast<const int32_t*>(x), zero_point, centred, n);
  }
}

[[maybe_unused]] static int64_t plain_table_sum(const ValueTable& table, uint8_t from, const uint8_t* x, int64_t n) {
  int64_t total = 0;
  for (int64_t i = 0; i < n; i++) total += table.values[static_cast<uint8_t>(from - x[i])];
  return total;
}

[[maybe_unused]] static void plain_scale(int32_t* values, int32_t by, int32_t less, int64_t n) {
  for (int64_t i = 0; i < n; i++) values[i] = values[i] * by - less;
}

[[maybe_unused]] static void plain_pack_step(const uint8_t* b, ptrdiff_t stride, int rows, int columns, uint8_t flip,
                                             uint8_t* panel, int32_t* sums) {
  const int width = (columns + kVector - 1) / kVector * kVector;
  if (rows < kStep || columns < width)
    for (int i = 0; i < width * kStep; i++) panel[i] = 0;
  for (int r = 0; r < rows; r++)
    for (int n = 0; n < columns; n++) {
      const auto value = static_cast<uint8_t>(b[r * stride + n] ^ flip);
      panel[n * kStep + r] = value;
      sums[n] += static_cast<int8_t>(value);
    }
}

[[maybe_unused]] static void plain_subtract(int32_t* acc, int rows, int columns, const int32_t* by) {
  for (int i = 0; i < rows; i++)
    for (int n = 0; n < columns; n++)
      acc[i * kPanel + n] =
          static_cast<int32_t>(static_cast<uint32_t>(acc[i * kPanel + n]) - static_cast<uint32_t>(by[i]));
}

// In double precision, where everything is an integer below 2^53: the quotient by the reciprocal is off by at most 1,
// which the remainder shows.
[[maybe_unused]] static void plain_divide(const double* values, int n, double sum, const OutputRange& range,
                                          int32_t* y) {
  const double divisor = 2 * sum, reciprocal = 1 / divisor, largest = INT32_MAX;
  const double low = range.qmin, high = range.qmax, zero_point = range.zero_point;
  for (int i = 0; i < n; i++) {
    const double dividend = values[i] + sum;
    double quotient = static_cast<int32_t>(std::min(dividend * reciprocal, largest));
    const double rest = dividend - quotient * divisor;
    quotient += rest >= divisor ? 1.0 : 0.0;
    quotient -= rest < 0 ? 1.0 : 0.0;
    y[i] = static_cast<int32_t>(std::min(std::max(quotient + zero_point, low), high));
  }
}

}  // namespace
}  // namespace onnxq
