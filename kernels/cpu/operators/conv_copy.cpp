// Copies of images that a convolution makes before it runs: padded, unsigned, and in the order that tiles read.
#include <algorithm>
#include <cstring>

#include "cpu/common/sizes.hpp"
#include "cpu/operators/conv.hpp"

namespace onnxq {

void Convolution::copy(const Plan& p, size_t i, const void* x, uint8_t* to) const {
  const auto part = static_cast<int64_t>(i);
  const int64_t row0 = p.copy_rows * part / p.copy_parts, row1 = p.copy_rows * (part + 1) / p.copy_parts;
  const size_t all_scratch = p.copy_scratch * static_cast<size_t>(p.copy_parts);
  copy_rows(p, row0, row1, static_cast<const uint8_t*>(x), to + row0 * copy_row_bytes(p.w),
            to + p.copy_bytes - all_scratch + i * p.copy_scratch);
  if (part + 1 == p.copy_parts) std::memset(to + p.n * p.spacing.image, 0, kSlack);
}

int64_t Convolution::copy_row_bytes(int64_t w) const {
  const int64_t c = shape_.in_channels, padded_w = w + shape_.left + shape_.right;
  if (form_.phases) return ceil_div(padded_w, shape_.stride_w) * c;
  return padded_w * c * std::max(1, form_.row_group);
}

// Rows row0 to row1 of the copy. scratch: p.copy_scratch bytes.
void Convolution::copy_rows(const Plan& p, int64_t row0, int64_t row1, const uint8_t* x, uint8_t* to,
                            uint8_t* scratch) const {
  if (form_.row_group)
    copy_row_groups(p, row0, row1, x, to, scratch);
  else if (form_.phases)
    copy_phases(p, row0, row1, x, to);
  else
    copy_lines(p, row0, row1, x, to);
}

void Convolution::copy_lines(const Plan& p, int64_t row0, int64_t row1, const uint8_t* x, uint8_t* to) const {
  const ConvShape& s = shape_;
  const int64_t c = s.in_channels, padded_h = p.h + s.top + s.bottom;
  const auto line = static_cast<size_t>(p.w * c), left = static_cast<size_t>(s.left * c);
  const auto right = static_cast<size_t>(s.right * c);
  for (int64_t row = row0; row < row1; row++) {
    const int64_t image = row / padded_h, in = row % padded_h - s.top;
    std::memset(to, zero_point_, left);
    to += left;
    const uint8_t* from = x + (image * p.h + in) * p.w * c;
    if (in < 0 || in >= p.h)
      std::memset(to, zero_point_, line);
    else if (flip_)
      for (size_t k = 0; k < line; k++) to[k] = from[k] ^ 0x80;
    else
      std::memcpy(to, from, line);
    to += line;
    std::memset(to, zero_point_, right);
    to += right;
  }
}

// A plane for each phase of the strides: [kernel row phase][kernel column phase][plane row][plane column][channel].
void Convolution::copy_phases(const Plan& p, int64_t row0, int64_t row1, const uint8_t* x, uint8_t* to) const {
  const ConvShape& s = shape_;
  const int64_t c = s.in_channels, line = p.spacing.line, plane_h = ceil_div(p.h + s.top + s.bottom, s.stride_h);
  const int64_t planes_w = std::min(s.kw, s.stride_w), planes = std::min(s.kh, s.stride_h) * planes_w;
  const auto bytes = static_cast<size_t>(c);
  for (int64_t row = row0; row < row1; row++) {
    const int64_t image = row / (plane_h * planes), plane = row / plane_h % planes;
    const int64_t in_y = row % plane_h * s.stride_h + plane / planes_w - s.top;
    uint8_t* at = to + (row - row0) * line;
    if (in_y < 0 || in_y >= p.h) {
      std::memset(at, zero_point_, static_cast<size_t>(line));
      continue;
    }
    const uint8_t* const from = x + (image * p.h + in_y) * p.w * c;
    const uint8_t* const end = at + line;
    for (int64_t in_x = plane % planes_w - s.left; at < end; in_x += s.stride_w, at += c) {
      if (in_x < 0 || in_x >= p.w)
        std::memset(at, zero_point_, bytes);
      else if (flip_)
        for (int64_t k = 0; k < c; k++) at[k] = from[in_x * c + k] ^ 0x80;
      else
        std::memcpy(at, from + in_x * c, bytes);
    }
  }
}

// Row r of the copy holds rows r to r + row_group − 1 of the padded image, pixel by pixel.
void Convolution::copy_row_groups(const Plan& p, int64_t row0, int64_t row1, const uint8_t* x, uint8_t* to,
                                  uint8_t* padding) const {
  const ConvShape& s = shape_;
  const int64_t c = s.in_channels, padded_h = p.h + s.top + s.bottom, pixel = form_.row_group * c;
  const uint8_t flip = flip_ ? 0x80 : 0;
  std::memset(padding, zero_point_ ^ flip, static_cast<size_t>(p.w * c));
  uint8_t places[64];
  for (int i = 0; i < 64; i++) places[i] = interleave_place(i, form_.row_group, static_cast<int>(c));
  for (int64_t row = row0; row < row1; row++) {
    const uint8_t* from[4];
    for (int g = 0; g < form_.row_group; g++) {
      const int64_t in = row % padded_h - s.top + g;
      from[g] = in < 0 || in >= p.h ? padding : x + (row / padded_h * p.h + in) * p.w * c;
    }
    std::memset(to, zero_point_, static_cast<size_t>(s.left * pixel));
    to += s.left * pixel;
    tier_.interleave_rows({from, form_.row_group, static_cast<int>(c), p.w, flip, places, to});
    to += p.w * pixel;
    std::memset(to, zero_point_, static_cast<size_t>(s.right * pixel));
    to += s.right * pixel;
  }
}

}  // namespace onnxq
