// LayerNorm and RMSNorm in integers, after I-BERT; onnxq/operators/layer_norm.py is the definition.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/elementwise/elementwise.hpp"

namespace onnxq {

struct LayerNormSpec {
  IntType x_type;
  int32_t x_zero_point;
  std::vector<int32_t> gamma;  // one or n
  std::vector<int64_t> beta;   // one or n
  int32_t shift;
  int64_t epsilon;  // 0 to 2^61
  bool center;
  OutputRange range;
};

class LayerNorm {
 public:
  static constexpr int64_t kLongest = 1 << 15;

  LayerNorm(const Elementwise& kernels, const LayerNormSpec& spec);

  // The row length n that gamma and beta have, 1 where any will do.
  int64_t channels() const { return static_cast<int64_t>(gamma_.size()); }
  // Rows of n values, at most kLongest. scratch: 4·n bytes, 64-byte aligned.
  void run(const void* x, int64_t n, void* y, int64_t begin, int64_t end, int32_t* scratch) const;

 private:
  const Elementwise& kernels_;
  LayerNormSpec spec_;
  std::vector<int32_t> gamma_, shift_;
  std::vector<int64_t> offset_;  // beta and the rounding constant
  bool narrow_ = true;           // as in SumRow
};

}  // namespace onnxq
