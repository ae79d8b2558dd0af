// Softmax of 8-bit values: e = table[max − x], y = sat(floor((2·e·b + S·2^c) / (S·2^(c+1))) + zero_point), S = Σ e.
//
// In a row e and so y depend on max − x alone: y is worked out once for each of its values that can come out as
// anything but 0, and looked up.
#pragma once

#include <array>
#include <cstdint>

#include "cpu/elementwise/elementwise.hpp"

namespace onnxq {

struct SoftmaxSpec {
  bool is_signed;                  // x
  std::array<int32_t, 256> table;  // 0 to 2^20; the first more than 0
  int32_t multiplier, shift;       // shift at most 16
  OutputRange range;
};

class Softmax {
 public:
  Softmax(const Elementwise& kernels, const SoftmaxSpec& spec);

  // Rows `begin` to `end` of [outer][n][inner]; row r has its values `inner` apart. n is at most 2^25.
  // scratch: n bytes, and n more for each byte of y's type; none if inner is 1 and y is of 8 bits.
  void run(const uint8_t* x, int64_t n, int64_t inner, void* y, int64_t begin, int64_t end, uint8_t* scratch) const;

 private:
  void row(const uint8_t* x, int64_t n, void* y) const;

  const Elementwise& kernels_;
  SoftmaxSpec spec_;
  int count_;                          // of the entries of the table that can give more than 0
  std::array<double, 256> dividends_;  // floor(2·e·b / 2^c), the entry of max − x = d at 255 − d
  int32_t least_;                      // y of those that give 0
};

}  // namespace onnxq
