// Walking over operands that broadcast together, as in NumPy, element by element.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace onnxq {

using Dims = std::vector<int64_t>;

// The shape of operands broadcast together. Throws when they do not broadcast.
Dims broadcast(const Dims& a, const Dims& b);

// Strides of an operand in y's shape, in elements: 0 along repeated axes.
Dims broadcast_strides(const Dims& operand, const Dims& y);

// How y is walked: rows of `n` positions that are contiguous in y, along which each operand steps by 0 or 1.
class Walk {
 public:
  static constexpr int kOperands = 3;

  // strides: of each operand in y's shape; empty: the operand is one value.
  Walk(const Dims& y, const std::vector<Dims>& strides);

  int64_t size() const { return size_; }
  int64_t n() const { return n_; }
  bool steps(int operand) const { return inner_step_[operand] != 0; }

  // Calls row(position in y, positions of the operands, count) for the positions from `begin` to `end` of y.
  template <class F>
  void each(int64_t begin, int64_t end, const F& row) const {
    for (int64_t i = begin; i < end;) {
      const int64_t inside = i % n_, left = n_ - inside, count = left < end - i ? left : end - i;
      int64_t at[kOperands];
      for (int k = 0; k < kOperands; k++) at[k] = inside * inner_step_[k];
      int64_t rest = i / n_;
      for (std::size_t d = outer_.size(); d-- > 0; rest /= outer_[d].size)
        for (int k = 0; k < kOperands; k++) at[k] += rest % outer_[d].size * outer_[d].stride[k];
      row(i, at, count);
      i += count;
    }
  }

 private:
  struct Axis {
    int64_t size;
    int64_t stride[kOperands];
  };
  std::vector<Axis> outer_;
  int64_t n_ = 1, size_ = 1;
  int64_t inner_step_[kOperands] = {};
};

}  // namespace onnxq
