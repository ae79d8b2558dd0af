// Sizes of windows, blocks and scratch memory.
#pragma once

#include <cstddef>
#include <cstdint>

namespace onnxq {

constexpr size_t kLine = 64;   // bytes of a cache line, and of a vector
constexpr size_t kSlack = 64;  // bytes beyond copied rows that a step of a product may read

// Models and inputs may be hostile. With sizes within these bounds no product of a few of them overflows: a dimension or
// an integer attribute, and the values of a tensor or of a padded copy of one (16 GiB of bytes).
constexpr int64_t kMostSize = INT32_MAX;
constexpr int64_t kMostValues = int64_t{1} << 34;

// a · b for sizes, kMostValues + 1 where it is greater than kMostValues.
static inline int64_t bounded_product(int64_t a, int64_t b) {
  return a > 0 && b > kMostValues / a ? kMostValues + 1 : a * b;
}

static inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

static inline size_t aligned(size_t bytes) { return (bytes + kLine - 1) / kLine * kLine; }

// Lines of nibbles that hold this many weights; see Tier::unpack4.
static inline size_t nibble_lines(size_t weights) { return (weights + 2 * kLine - 1) / (2 * kLine); }

// Outputs along one axis of a window that slides over `size` values and `pads` more; 0 where it does not fit. All are
// at most kMostSize, pads twice that.
static inline int64_t out_size(int64_t size, int64_t pads, int64_t kernel, int64_t dilation, int64_t stride) {
  const int64_t room = size + pads - (kernel - 1) * dilation - 1;
  return room < 0 ? 0 : room / stride + 1;
}

}  // namespace onnxq
