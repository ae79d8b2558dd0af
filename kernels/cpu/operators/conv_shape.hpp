// The shape of a convolution on channels-last tensors.
#pragma once

#include <cstdint>

namespace onnxq {

struct ConvShape {
  int64_t in_channels, out_channels;
  int64_t groups = 1;
  int64_t kh = 1, kw = 1;
  int64_t stride_h = 1, stride_w = 1;
  int64_t dilation_h = 1, dilation_w = 1;
  int64_t top = 0, left = 0, bottom = 0, right = 0;  // padding
};

}  // namespace onnxq
