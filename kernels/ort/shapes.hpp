// Shapes at run time and in shape inference, and their text in messages.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpu/common/broadcast.hpp"
#include "ort/api.hpp"

namespace onnxq {

inline std::string shape_text(const Dims& dims) {
  std::string s = "[";
  for (const int64_t d : dims) s += (s.size() > 1 ? "," : "") + std::to_string(d);
  return s + "]";
}

inline bool is_empty(const Dims& dims) { return std::find(dims.begin(), dims.end(), 0) != dims.end(); }

inline int64_t product(const Dims& dims, size_t begin, size_t end) {
  int64_t all = 1;
  for (size_t i = begin; i < end; i++) all *= dims[i];
  return all;
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
