#include "cpu/operators/pool.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu/common/sizes.hpp"

namespace onnxq {
namespace {

constexpr int64_t kChunk = 512;  // sums that a reduction holds between adding and rescaling

// The elements k of a window along one axis that are inside the image: begin <= k < end.
struct Span {
  int64_t begin, end;
  int64_t count() const { return std::max<int64_t>(end - begin, 0); }
};

Span inside(int64_t first, int64_t size, int64_t kernel, int64_t dilation) {
  const int64_t begin = first >= 0 ? 0 : (-first + dilation - 1) / dilation;
  const int64_t end = first >= size ? 0 : (size - 1 - first) / dilation + 1;
  return {begin, std::min(end, kernel)};
}

// n times the smallest value of the type.
void fill_least(IntType type, uint8_t* y, int64_t n) {
  if (type == IntType::S32)
    std::fill_n(reinterpret_cast<int32_t*>(y), n, INT32_MIN);
  else if (type == IntType::S16)
    std::fill_n(reinterpret_cast<int16_t*>(y), n, INT16_MIN);
  else
    std::memset(y, type == IntType::S8 ? 0x80 : 0, static_cast<size_t>(n));
}

}  // namespace

int64_t Window::out_h(int64_t h) const { return out_size(h, top + bottom, kh, dilation_h, stride_h); }
int64_t Window::out_w(int64_t w) const { return out_size(w, left + right, kw, dilation_w, stride_w); }

size_t max_pool_scratch(const PoolImage& image, IntType type) {
  return aligned(static_cast<size_t>(image.w * image.c * size_of(type)));
}

void max_pool(const Elementwise& kernels, const Window& window, const PoolImage& image, IntType type, const void* x,
              void* y, int64_t begin, int64_t end, uint8_t* scratch) {
  const int64_t c = image.c, row = image.w * c, size = size_of(type);
  for (int64_t i = begin; i < end; i++) {
    uint8_t* const to = static_cast<uint8_t*>(y) + i * image.ow * c * size;
    const int64_t top = i % image.oh * window.stride_h - window.top;
    const Span rows = inside(top, image.h, window.kh, window.dilation_h);
    if (!rows.count()) {
      fill_least(type, to, image.ow * c);
      continue;
    }
    const int64_t first = (i / image.oh * image.h + top + rows.begin * window.dilation_h) * row;
    const uint8_t* from = static_cast<const uint8_t*>(x) + first * size;
    if (rows.count() > 1) {
      kernels.max_rows(from, type, window.dilation_h * row, rows.count(), scratch, row);
      from = scratch;
    }
    for (int64_t j = 0; j < image.ow; j++) {
      const int64_t left = j * window.stride_w - window.left;
      const Span columns = inside(left, image.w, window.kw, window.dilation_w);
      if (columns.count())
        kernels.max_rows(from + (left + columns.begin * window.dilation_w) * c * size, type, window.dilation_w * c,
                         columns.count(), to + j * c * size, c);
      else
        fill_least(type, to + j * c * size, c);
    }
  }
}

Mean::Mean(const Elementwise& kernels, const MeanSpec& spec) : kernels_(kernels), spec_(spec) {
  for (size_t i = 0; i < spec.multiplier.size(); i++) {
    offset_.push_back(int64_t{1} << (spec.shift[i] - 1));
    const double largest = 2147483648.0 * spec.multiplier[i] / std::ldexp(1.0, spec.shift[i]);
    narrow_ = narrow_ && largest + std::abs(double{1} * spec.range.zero_point) + 2 < 2147483647.0;
  }
}

void Mean::rescale(const int32_t* sums, size_t position, void* y, int64_t n) const {
  const size_t p = positions() == 1 ? 0 : position;
  SumRow row{};
  row.a = sums;
  row.a_type = IntType::S32;
  row.a_multiplier = spec_.multiplier.data() + p;
  row.shift = spec_.shift.data() + p;
  row.offset = offset_.data() + p;
  row.uniform = true;
  row.narrow = narrow_;
  row.range = spec_.range;
  row.y = y;
  row.n = n;
  kernels_.sum(row);
}

size_t Mean::pool_scratch(const PoolImage& image) {
  return aligned(static_cast<size_t>(image.w * image.c) * 4) + aligned(static_cast<size_t>(image.ow * image.c) * 4);
}

void Mean::pool(const Window& window, const PoolImage& image, const void* x, void* y, int64_t begin, int64_t end,
                uint8_t* scratch) const {
  const int64_t c = image.c, row = image.w * c;
  auto* const columns = reinterpret_cast<int32_t*>(scratch);
  auto* const sums = reinterpret_cast<int32_t*>(scratch + aligned(static_cast<size_t>(row) * 4));
  for (int64_t i = begin; i < end; i++) {
    const int64_t oy = i % image.oh, top = oy * window.stride_h - window.top;
    const Span rows = inside(top, image.h, window.kh, window.dilation_h);
    const void* from = x;
    IntType type = spec_.x_type;
    if (rows.count()) {
      const int64_t at = (i / image.oh * image.h + top + rows.begin * window.dilation_h) * row;
      from = static_cast<const uint8_t*>(x) + at * size_of(type);
      if (rows.count() > 1) {
        kernels_.sum_rows(from, type, window.dilation_h * row, rows.count(), 0, columns, row);
        from = columns;
        type = IntType::S32;
      }
    }
    for (int64_t j = 0; j < image.ow; j++) {
      const int64_t left = j * window.stride_w - window.left;
      const Span span = inside(left, image.w, window.kw, window.dilation_w);
      const int64_t count = rows.count() * span.count();
      const auto init = static_cast<int32_t>(static_cast<uint32_t>(-count * spec_.x_zero_point));
      const int64_t at = count ? (left + span.begin * window.dilation_w) * c : 0;
      kernels_.sum_rows(static_cast<const uint8_t*>(from) + at * size_of(type), type, window.dilation_w * c,
                        count ? span.count() : 0, init, sums + j * c, c);
    }
    auto* const to = static_cast<uint8_t*>(y) + i * image.ow * c * size_of(spec_.range.type);
    if (positions() == 1) {
      rescale(sums, 0, to, image.ow * c);
      continue;
    }
    for (int64_t j = 0; j < image.ow; j++)
      rescale(sums + j * c, static_cast<size_t>(oy * image.ow + j), to + j * c * size_of(spec_.range.type), c);
  }
}

void Mean::reduce(const void* x, int64_t count, int64_t inner, void* y, int64_t begin, int64_t end) const {
  alignas(64) int32_t sums[kChunk];
  const auto init = static_cast<int32_t>(static_cast<uint32_t>(-count * spec_.x_zero_point));
  for (int64_t i = begin; i < end;) {
    const int64_t stop = std::min(end, i + kChunk), first = i;
    while (i < stop) {  // the sums of one or of many outer positions
      const int64_t outer = i / inner, place = i % inner, n = std::min(inner - place, stop - i);
      const int64_t at = outer * count * inner + place;
      kernels_.sum_rows(static_cast<const uint8_t*>(x) + at * size_of(spec_.x_type), spec_.x_type, inner, count, init,
                        sums + (i - first), n);
      i += n;
    }
    rescale(sums, 0, static_cast<uint8_t*>(y) + first * size_of(spec_.range.type), stop - first);
  }
}

}  // namespace onnxq
