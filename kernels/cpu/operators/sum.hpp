// Add, Sub and Requantize: a sum of one or two rescaled terms, with multipliers and shifts of one value or one per
// position along an axis; and Mul.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "cpu/common/broadcast.hpp"
#include "cpu/elementwise/elementwise.hpp"

namespace onnxq {

struct SumSpec {
  struct Term {
    IntType type;
    int32_t zero_point;
    std::vector<int32_t> multiplier;  // one, or one per channel; negative where the term is subtracted
  };
  std::vector<Term> terms;  // one or two
  std::vector<int32_t> shift;
  OutputRange range;
};

class Sum {
 public:
  // The vectors of `spec` must have one or the same number of values.
  Sum(const Elementwise& kernels, const SumSpec& spec);

  // Values of each vector, 1 where one serves all channels.
  int64_t channels() const { return static_cast<int64_t>(shift_.size()); }
  // Whether y is x itself: one term with b = 2^c, of y's type, and nothing to saturate.
  bool identity() const { return identity_; }

  // walk: the operands are a, b and the channels.
  void run(const Walk& walk, int64_t begin, int64_t end, const void* a, const void* b, void* y) const;
  // One term with uniform multipliers, over n values.
  void run(const void* a, void* y, int64_t n) const;

 private:
  // uniform: all n positions take the constants of `channel`, otherwise those of the n channels from there on.
  void row(const void* a, const void* b, int64_t channel, bool uniform, void* y, int64_t n) const;
  void prepare_bytes();
  void prepare_table();

  const Elementwise& kernels_;
  SumRow row_{};
  std::vector<int32_t> a_multiplier_, b_multiplier_, shift_;
  std::vector<int64_t> offset_;
  bool identity_ = false, bytes_ = false, table_ = false;
  ByteSum byte_sum_{};
  std::array<uint8_t, 256> values_{};  // by the byte of an 8-bit x
};

class Product {
 public:
  // row: what all rows share; `narrow` is determined here.
  Product(const Elementwise& kernels, const ProductRow& row);
  void run(const Walk& walk, int64_t begin, int64_t end, const void* a, const void* b, void* y) const;

 private:
  const Elementwise& kernels_;
  ProductRow row_;
};

}  // namespace onnxq
