// Softmax of 8-bit values: e = table[max − x], y = sat(floor((2·e·b + S·2^c) / (S·2^(c+1))) + zero_point), S = Σ e.
//
// Within a row e, and so y, depends on max − x only: y is computed once for each difference that can give more than 0,
// and looked up.
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

  const Elementwise& kernels_;
  SoftmaxSpec spec_;
  int count_;                          // entries of the table that can give more than 0
  std::array<double, 256> dividends_;  // floor(2·e·b / 2^c), that of max − x = d at 255 − d
  int32_t least_;                      // y of the other entries
};

}  // namespace onnxq
