// Softmax of 8-bit values: e = table[max − x], y = sat(floor((2·e·b + S·2^c) / (S·2^(c+1))) + zero_point), S = Σ e.
//
// Within a row e, and so y, depends on max − x only: y is computed once for each difference that can give more than 0
// with the row's S, and looked up.
#pragma once

#include <array>
#include <cstdint>

#include "cpu/elementwise/elementwise.hpp"

namespace onnxq {

struct SoftmaxSpec {
  bool is_signed;                  // x
  std::array<int32_t, 256> table;  // 0 to 2^20; the first one positive
  int32_t multiplier, shift;       // shift at most 16
  OutputRange range;
};

class Softmax {
 public:
  Softmax(const Elementwise& kernels, const SoftmaxSpec& spec);

  // Rows `begin` to `end` of [outer][n][inner]; the values of a row are `inner` apart. n is at most 2^25.
  // scratch: n bytes, plus n times the size of y's type; none if inner is 1 and y has 8 bits.
  void run(const uint8_t* x, int64_t n, int64_t inner, void* y, int64_t begin, int64_t end, uint8_t* scratch) const;

 private:
  void row(const uint8_t* x, int64_t n, void* y) const;
  int entries(double total) const;

  const Elementwise& kernels_;
  SoftmaxSpec spec_;
  ValueTable table_;
  std::array<double, 256> dividends_;  // floor(2·e·b / 2^c), that of max − x = d at 255 − d
  std::array<double, 256> reach_;      // the largest of those of max − x >= d, at d
  int32_t least_;                      // y where the quotient is below 1/2
};

}  // namespace onnxq
