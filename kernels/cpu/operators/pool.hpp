// Pooling of channels-last tensors, and sums over axes. Windows are reduced along H first, whole rows at a time, then
// along W.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cpu/elementwise/elementwise.hpp"

namespace onnxq {

struct Window {
  int64_t kh, kw;
  int64_t stride_h = 1, stride_w = 1;
  int64_t dilation_h = 1, dilation_w = 1;
  int64_t top = 0, left = 0, bottom = 0, right = 0;

  int64_t out_h(int64_t h) const;  // 0 where no window fits
  int64_t out_w(int64_t w) const;
};

struct PoolImage {
  int64_t h, w, c, oh, ow;
};

// Rows `begin` to `end` of the n·OH output rows. scratch: max_pool_scratch() bytes, 64-byte aligned.
void max_pool(const Elementwise& kernels, const Window& window, const PoolImage& image, IntType type, const void* x,
              void* y, int64_t begin, int64_t end, uint8_t* scratch);
size_t max_pool_scratch(const PoolImage& image, IntType type);

struct MeanSpec {
  IntType x_type;
  int32_t x_zero_point;
  std::vector<int32_t> multiplier, shift;  // one value, or one per output position
  OutputRange range;
};

// Sums of values minus the zero point, rescaled.
class Mean {
 public:
  Mean(const Elementwise& kernels, const MeanSpec& spec);

  size_t positions() const { return spec_.multiplier.size(); }
  IntType x_type() const { return spec_.x_type; }

  // Like max_pool. If there is more than one position, there must be OH·OW.
  void pool(const Window& window, const PoolImage& image, const void* x, void* y, int64_t begin, int64_t end,
            uint8_t* scratch) const;
  static size_t pool_scratch(const PoolImage& image);

  // y[o][i] = mean over r of x[o][r][i], for positions `begin` to `end` of [outer][inner].
  void reduce(const void* x, int64_t count, int64_t inner, void* y, int64_t begin, int64_t end) const;

 private:
  void rescale(const int32_t* sums, size_t position, void* y, int64_t n) const;

  const Elementwise& kernels_;
  MeanSpec spec_;
  std::vector<int64_t> offset_;
  bool narrow_ = true;
};

}  // namespace onnxq
