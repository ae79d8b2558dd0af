// Shapes at run time and in shape inference, and their text in messages.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpu/common/broadcast.hpp"
#include "cpu/common/sizes.hpp"
#include "ort/api.hpp"

namespace onnxq {

inline std::string shape_text(const Dims& dims) {
  std::string s = "[";
  for (const int64_t d : dims) s += (s.size() > 1 ? "," : "") + std::to_string(d);
  return s + "]";
}

inline bool is_empty(const Dims& dims) { return std::find(dims.begin(), dims.end(), 0) != dims.end(); }

// The product of some dimensions, at most kMostValues + 1.
inline int64_t product(const Dims& dims, size_t begin, size_t end) {
  int64_t all = 1;
  for (size_t i = begin; i < end; i++) all = bounded_product(all, dims[i]);
  return all;
}

// Throws Error unless a list attribute has `count` values from `least` to kMostSize.
inline void check_sizes(const Dims& values, size_t count, int64_t least, const char* name) {
  bool good = values.size() == count;
  for (const int64_t v : values) good = good && v >= least && v <= kMostSize;
  if (!good)
    throw Error(std::string(name) + " must be " + (count == 1 ? "an integer" : std::to_string(count) + " integers") +
                " from " + std::to_string(least) + " to " + std::to_string(kMostSize) + ", not " + shape_text(values));
}

// The attributes of a window that slides over H and W.
inline void check_window(const Dims& strides, const Dims& pads, const Dims& dilations) {
  check_sizes(strides, 2, 1, "strides");
  check_sizes(dilations, 2, 1, "dilations");
  check_sizes(pads, 4, 0, "pads");
}

// Throws Error when a dimension is greater than kMostSize, which tensors with no values may have.
inline void check_dims(const Dims& dims, const char* name) {
  for (const int64_t d : dims)
    if (d > kMostSize)
      throw Error(std::string(name) + " has shape " + shape_text(dims) + ": dimensions of at most " +
                  std::to_string(kMostSize) + " are supported");
}

// Throws Error when an image [N, H, W, C] with its padding has more than kMostValues values.
inline void check_padded(const Dims& image, const Dims& pads) {
  check_dims(image, "x");
  const Dims padded = {image[1] + pads[0] + pads[2], image[2] + pads[1] + pads[3], image[3]};
  check_dims(padded, "x with its padding");
  if (product(padded, 0, 3) > kMostValues)
    throw Error("x with its padding has shape " + shape_text(padded) + ", more than 2^34 values");
}

// The shape of a and b broadcast together. Throws Error with both shapes when they do not broadcast.
inline Dims broadcast_or_throw(const Dims& a, const Dims& b) {
  try {
    return broadcast(a, b);
  } catch (const std::invalid_argument&) {
    throw Error("a and b do not broadcast: their shapes are " + shape_text(a) + " and " + shape_text(b));
  }
}

// An axis counted from the front. Throws Error when it is out of range for this rank.
inline size_t axis_of(int64_t axis, size_t rank, const char* name) {
  const int64_t from_front = axis < 0 ? axis + static_cast<int64_t>(rank) : axis;
  if (from_front < 0 || from_front >= static_cast<int64_t>(rank))
    throw Error("axis " + std::to_string(axis) + " is out of range for " + name + " of rank " + std::to_string(rank));
  return static_cast<size_t>(from_front);
}

// For Kernel::infer: the dimensions of a and b broadcast together, unknown where they cannot be determined.
inline TensorType inferred_broadcast(const TensorType& a, const TensorType& b) {
  TensorType y{0, {}, {}};
  const size_t rank = std::max(a.dims.size(), b.dims.size());
  for (size_t i = 0; i < rank; i++) {
    const auto p = static_cast<ptrdiff_t>(i) - static_cast<ptrdiff_t>(rank - a.dims.size());
    const auto q = static_cast<ptrdiff_t>(i) - static_cast<ptrdiff_t>(rank - b.dims.size());
    const int64_t d = p < 0 ? 1 : a.dims[static_cast<size_t>(p)], e = q < 0 ? 1 : b.dims[static_cast<size_t>(q)];
    const char* const s = p < 0 ? "" : a.symbols[static_cast<size_t>(p)];
    const char* const t = q < 0 ? "" : b.symbols[static_cast<size_t>(q)];
    const bool same = d == e && std::string(s) == t && (d >= 0 || *s);
    const bool takes_a = e == 1 || same || d > 1, takes_b = d == 1 || e > 1;
    y.dims.push_back(takes_a ? d : takes_b ? e : -1);
    y.symbols.push_back(takes_a ? s : takes_b ? t : "");
  }
  return y;
}

}  // namespace onnxq
