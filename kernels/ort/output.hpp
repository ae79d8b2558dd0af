// What operators that rescale share: the attributes of their output, its type in shape inference, and the vectors of
// multipliers and shifts.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cpu/common/rescale.hpp"
#include "ort/node.hpp"

namespace onnxq {

inline const char* type_name(int element) {
  switch (element) {
    case abi::kUint8: return "uint8";
    case abi::kInt8: return "int8";
    case abi::kInt16: return "int16";
    case abi::kInt32: return "int32";
    case abi::kInt4: return "int4";
    default: return "an unsupported type";
  }
}

inline bool is_8bit(int element) { return element == abi::kUint8 || element == abi::kInt8; }

inline IntType int_type(int element, const char* what) {
  switch (element) {
    case abi::kUint8: return IntType::U8;
    case abi::kInt8: return IntType::S8;
    case abi::kInt16: return IntType::S16;
    case abi::kInt32: return IntType::S32;
    default:
      throw Error(std::string(what) + " must be uint8, int8, int16 or int32, not element type " +
                  std::to_string(element));
  }
}

inline IntType int_type_8bit(int element, const char* what) {
  if (!is_8bit(element)) throw Error(std::string(what) + " must be uint8 or int8, not " + type_name(element));
  return int_type(element, what);
}

// An element type given as an attribute; 0, no type, for values that no type has.
inline int element_type(int64_t value) { return value < 0 || value > abi::kInt4 ? 0 : static_cast<int>(value); }

// Attributes y_type, y_zero_point, qmin and qmax.
inline OutputRange output_range(const Node& node) {
  OutputRange y{};
  y.type = int_type(element_type(node.integer("y_type")), "y_type");
  const int64_t low = least_of(y.type), high = most_of(y.type);
  const int64_t qmin = node.integer("qmin"), qmax = node.integer("qmax");
  const int64_t zero_point = node.integer("y_zero_point");
  if (qmin < low || qmax > high || qmin > qmax)
    throw Error("[qmin, qmax] = [" + std::to_string(qmin) + ", " + std::to_string(qmax) +
                "] is not a range of y's type");
  if (zero_point < low || zero_point > high)
    throw Error("y_zero_point " + std::to_string(zero_point) + " is outside y's type");
  y.zero_point = static_cast<int32_t>(zero_point);
  y.qmin = static_cast<int32_t>(qmin);
  y.qmax = static_cast<int32_t>(qmax);
  return y;
}

// A zero point of an 8-bit or int32 input, range checked.
inline int32_t zero_point(int64_t z, const std::string& name, IntType type) {
  const int64_t low = type == IntType::U8 ? 0 : type == IntType::S8 ? -128 : INT32_MIN;
  const int64_t high = type == IntType::U8 ? 255 : type == IntType::S8 ? 127 : INT32_MAX;
  if (z < low || z > high) throw Error(name + " " + std::to_string(z) + " is outside the input's type");
  return static_cast<int32_t>(z);
}

inline int32_t zero_point(const Node& node, const char* attribute, IntType type) {
  return zero_point(node.integer(attribute), attribute, type);
}

inline void check_multiplier(const std::vector<int32_t>& multiplier, const char* name) {
  for (const int32_t b : multiplier)
    if (b < 0) throw Error(std::string(name) + " " + std::to_string(b) + " is negative");
}

inline void check_shift(const std::vector<int32_t>& shift) {
  for (const int32_t c : shift)
    if (c < 1 || c > 62) throw Error("shift " + std::to_string(c) + " is not in [1, 62]");
}

// The values of an input, checked as multipliers.
inline std::vector<int32_t> multipliers(const Node& node, const char* input) {
  auto values = node.constant_vector(input);
  check_multiplier(values, input);
  return values;
}

inline std::vector<int32_t> shifts(const Node& node) {
  auto values = node.constant_vector("shift");
  check_shift(values);
  return values;
}

// One value per channel, from a vector of one value or of `count`.
inline std::vector<int32_t> per_channel(std::vector<int32_t> values, size_t count, const char* name) {
  if (values.size() == 1) return std::vector<int32_t>(count, values[0]);
  if (values.size() != count)
    throw Error(std::string(name) + " has " + std::to_string(values.size()) + " values for " + std::to_string(count) +
                " channels");
  return values;
}

// The value of a vector that must have exactly one.
inline int32_t one_value(const std::vector<int32_t>& values, const char* name) {
  if (values.size() != 1) throw Error(std::string(name) + " must be one value, got " + std::to_string(values.size()));
  return values[0];
}

// For Kernel::infer: y's type from y_type.
inline int inferred_y_type(const Inference& node) { return element_type(node.integer("y_type")); }

// Kernel::infer of operators whose y has the shape of their input x.
inline void infer_same_shape(const Inference& node) {
  TensorType y = node.input("x");
  y.element = inferred_y_type(node);
  node.output(y);
}

}  // namespace onnxq
