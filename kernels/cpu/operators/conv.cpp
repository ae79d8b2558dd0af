#include "cpu/operators/conv.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#include "cpu/common/sizes.hpp"

namespace onnxq {

namespace {

// About 4 µs. Dispatching a part costs about 0.5 µs, going parallel at all about 2 µs.
constexpr int64_t kPartMacs = 1'000'000;
constexpr int64_t kMaxParts = 64;
constexpr int kFewRows = 8;                    // up to here nibbles are not unpacked first
constexpr int64_t kChunkPixels = 512;          // a chunk's inputs and row pointers fit the second-level cache
constexpr int64_t kCopyBytes = 1 << 20;        // as many images are copied at a time as fit here, to stay in the cache
constexpr int64_t kCopyPartBytes = 128 << 10;  // what a thread copies in about 10 µs

}  // namespace

// Pointers to the first input pixel of each row of the product, and the taps' offsets from there.
struct Convolution::Rows {
  const uint8_t** pointers;
  int64_t count;
  ptrdiff_t* taps;
  int64_t first;  // output pixel of the first row
  int64_t all;    // output pixels of the whole run
};

size_t Convolution::panel_bytes(const Panel& panel) const {
  return (&panel == &panels_.back() ? packed_.size() : (&panel + 1)->offset) - panel.offset;
}

// The size of the widest panel that nibbles are unpacked into.
size_t Convolution::unpacked_bytes() const {
  return nibble_lines(static_cast<size_t>(tap_count_) * static_cast<size_t>(steps_) * kPanel * kStep) * 2 * kLine;
}

int64_t Convolution::panel_count() const {
  return depthwise_ ? ceil_div(shape_.out_channels, kPanel) : static_cast<int64_t>(panels_.size());
}

// What is cut into parts: output rows of a depthwise convolution, tiles, or output pixels.
int64_t Convolution::units(const Plan& p) const {
  return p.tiles ? static_cast<int64_t>(p.tiles->size()) : p.n * p.oh * (depthwise_ ? 1 : p.ow);
}

int64_t Convolution::out_h(int64_t h) const {
  return out_size(h, shape_.top + shape_.bottom, shape_.kh, shape_.dilation_h, shape_.stride_h);
}

int64_t Convolution::out_w(int64_t w) const {
  return out_size(w, shape_.left + shape_.right, shape_.kw, shape_.dilation_w, shape_.stride_w);
}

int64_t Convolution::images_at_a_time(int64_t h, int64_t w) const {
  if (!copies_ || depthwise_) return std::numeric_limits<int64_t>::max();
  const ConvShape& s = shape_;
  const int64_t bytes = (h + s.top + s.bottom) * (w + s.left + s.right) * s.in_channels;
  return std::max<int64_t>(1, kCopyBytes / std::max<int64_t>(1, bytes));
}

Convolution::Plan Convolution::plan(int64_t n, int64_t h, int64_t w) const {
  const ConvShape& s = shape_;
  Plan p{};
  p.n = n, p.h = h, p.w = w;
  p.oh = out_h(h), p.ow = out_w(w);
  const int64_t pixels = n * p.oh * p.ow, all = units(p);
  p.row_parts = p.panel_parts = 1;
  if (!pixels) return p;
  p.spacing = spacing(h, w);

  const int64_t taps = s.kh * s.kw * (s.in_channels / s.groups);
  const double cost = static_cast<double>(pixels * s.out_channels) * static_cast<double>(taps + (depthwise_ ? 60 : 24));
  const auto parts = static_cast<int64_t>(std::clamp(cost / kPartMacs, 1.0, double{kMaxParts}));  // with the epilogue
  const int64_t panels = panel_count();
  const int64_t most_rows = std::max<int64_t>(1, std::min(all, pixels / 32));
  // Weights larger than activations: by channels, so that each thread reads its own. A depthwise convolution is cut
  // like the 1×1 convolution upstream: then its input is in this core's cache.
  const bool by_channels = depthwise_ ? !flip_ && s.out_channels > n * h * w
                                      : static_cast<int64_t>(packed_.size()) > n * h * w * s.in_channels;
  if (by_channels) {
    p.panel_parts = std::min(parts, panels);
    p.row_parts = std::min(ceil_div(parts, p.panel_parts), most_rows);
  } else {
    p.row_parts = std::min(parts, most_rows);
    p.panel_parts = depthwise_ ? 1 : std::min(ceil_div(parts, p.row_parts), panels);
  }

  const int64_t padded_h = h + s.top + s.bottom, padded_w = w + s.left + s.right;
  if (depthwise_) {
    p.scratch_bytes = aligned(static_cast<size_t>(padded_w * s.kh) * sizeof(void*)) +
                      aligned(static_cast<size_t>(s.in_channels)) +
                      (flip_ ? aligned(static_cast<size_t>(s.kh * w * s.in_channels)) : 0);
    return p;
  }
  p.chunk = std::clamp<int64_t>(ceil_div(all, p.row_parts), 1, kChunkPixels);
  p.scratch_bytes = aligned(static_cast<size_t>(p.chunk) * sizeof(void*)) +
                    aligned(static_cast<size_t>(tap_count_) * sizeof(ptrdiff_t)) + (nibbles_ ? unpacked_bytes() : 0);
  p.copy_scratch = form_.row_group ? aligned(static_cast<size_t>(w * s.in_channels) + kSlack) : 0;
  if (form_.used) plan_tiles(p);
  if (copies_ && !p.own_copy) {
    p.copy_rows = n * (form_.phases ? p.spacing.image / p.spacing.line : padded_h);
    p.copy_bytes = aligned(static_cast<size_t>(n * p.spacing.image) + kSlack);
    p.copy_parts = std::clamp<int64_t>(static_cast<int64_t>(p.copy_bytes) / kCopyPartBytes, 1, p.copy_rows);
    p.copy_bytes += p.copy_scratch * static_cast<size_t>(p.copy_parts);
  }
  return p;
}

Spacing Convolution::spacing(int64_t h, int64_t w) const {
  const ConvShape& s = shape_;
  const int64_t c = s.in_channels, ph = h + s.top + s.bottom, pw = w + s.left + s.right;
  if (form_.row_group) {
    const int64_t pixel = form_.row_group * c;
    return {s.stride_w * pixel, s.stride_h * pw * pixel, ph * pw * pixel};
  }
  if (form_.phases) {
    const int64_t line = ceil_div(pw, s.stride_w) * c, planes = std::min(s.kh, s.stride_h) * std::min(s.kw, s.stride_w);
    return {c, line, planes * ceil_div(ph, s.stride_h) * line};
  }
  const int64_t line = (copies_ ? pw : w) * c;
  return {s.stride_w * c, s.stride_h * line, (copies_ ? ph : h) * line};
}

// What each tap adds to the address of an output's first input pixel.
void Convolution::set_taps(const Plan& p, ptrdiff_t* taps) const {
  const ConvShape& s = shape_;
  const int64_t c = s.in_channels, line = (copies_ ? p.w + s.left + s.right : p.w) * c;
  for (int64_t t = 0; t < tap_count_; t++) {
    const int64_t dy = merged_ ? t : t / s.kw, dx = merged_ ? 0 : t % s.kw;
    if (form_.row_group) {
      taps[t] = t * form_.row_group * line * form_.row_group;
    } else if (form_.phases) {
      const int64_t plane = dy % s.stride_h * std::min(s.kw, s.stride_w) + dx % s.stride_w;
      const int64_t plane_h = ceil_div(p.h + s.top + s.bottom, s.stride_h);
      taps[t] = (plane * plane_h + dy / s.stride_h) * p.spacing.line + dx / s.stride_w * c;
    } else {
      taps[t] = dy * s.dilation_h * line + dx * s.dilation_w * c;
    }
  }
}

void Convolution::run(const Plan& p, size_t i, const void* x, const void* residual, void* y, uint8_t* scratch) const {
  const int64_t all = units(p);
  if (!all || !p.ow) return;
  // Adjacent parts share their panels.
  const auto panel_part = static_cast<int64_t>(i) / p.row_parts, row_part = static_cast<int64_t>(i) % p.row_parts;
  const int64_t panels = panel_count(), grain = p.tiles ? kTileGrain : 1;
  const int64_t unit0 = part_begin(all, row_part, p.row_parts, grain);
  const int64_t unit1 = part_begin(all, row_part + 1, p.row_parts, grain);
  const int64_t panel0 = part_begin(panels, panel_part, p.panel_parts, grain);
  const int64_t panel1 = part_begin(panels, panel_part + 1, p.panel_parts, grain);
  const auto* pixels = static_cast<const uint8_t*>(x);
  if (depthwise_) return run_depthwise(p, unit0, unit1, panel0, panel1, pixels, y, scratch);
  if (p.tiles) return run_tiles(p, unit0, unit1, panel0, panel1, pixels, residual, y, scratch);
  run_rows(p, unit0, unit1, panel0, panel1, pixels, residual, y, scratch);
}

void Convolution::run_rows(const Plan& p, int64_t pixel0, int64_t pixel1, int64_t panel0, int64_t panel1,
                           const uint8_t* x, const void* residual, void* y, uint8_t* scratch) const {
  Rows rows{};
  rows.all = units(p);
  rows.pointers = reinterpret_cast<const uint8_t**>(scratch);
  scratch += aligned(static_cast<size_t>(p.chunk) * sizeof(void*));
  rows.taps = reinterpret_cast<ptrdiff_t*>(scratch);
  auto* unpacked = reinterpret_cast<int8_t*>(scratch + aligned(static_cast<size_t>(tap_count_) * sizeof(ptrdiff_t)));
  set_taps(p, rows.taps);
  for (int64_t u = pixel0; u < pixel1; u += p.chunk) {
    const int64_t end = std::min(u + p.chunk, pixel1);
    rows.first = u;
    rows.count = end - u;
    const uint8_t** pointer = rows.pointers;
    for (int64_t q = u; q < end;) {  // an output row at a time
      const int64_t ox = q % p.ow, oy = q / p.ow % p.oh, image = q / p.ow / p.oh;
      const uint8_t* pixel = x + image * p.spacing.image + oy * p.spacing.line + ox * p.spacing.pixel;
      const int64_t next = std::min(end, q + p.ow - ox);
      for (; q < next; q++, pixel += p.spacing.pixel) *pointer++ = pixel;
    }
    run_dense(p, rows, panel0, panel1, residual, y, unpacked);
  }
}

void Convolution::run_dense(const Plan&, const Rows& rows, int64_t panel0, int64_t panel1, const void* residual,
                            void* y, int8_t* unpacked) const {
  const ConvShape& s = shape_;
  alignas(64) int32_t acc[kMaxRows * kPanel];
  const int64_t ld = s.out_channels;
  if (tier_.begin) tier_.begin(tap_count_, steps_);
  int64_t group = 0;
  for (int64_t i = panel0; i < panel1; i++) {
    const Panel& panel = panels_[static_cast<size_t>(i)];
    const ptrdiff_t shift_taps = (panel.group - group) * (s.in_channels / s.groups);
    for (int64_t t = 0; shift_taps && t < tap_count_; t++) rows.taps[t] += shift_taps;
    group = panel.group;

    GemmBlock block{nullptr,
                    rows.taps,
                    0,
                    tap_count_,
                    steps_,
                    panel.vectors,
                    packed_.data() + panel.offset,
                    init_.data() + panel.channel,
                    acc,
                    nullptr,
                    0,
                    pairs_fit_};
    const int most = tier_.rows[panel.vectors];
    auto gemm = tier_.gemm;
    if (nibbles_) {
      if (tier_.gemm4 && rows.count <= std::min(most, kFewRows) && tap_count_ == 1) {
        gemm = tier_.gemm4;
      } else {
        const size_t bytes =
            static_cast<size_t>(tap_count_) * static_cast<size_t>(steps_ * panel.vectors) * kVector * kStep;
        tier_.unpack4(reinterpret_cast<const uint8_t*>(block.panel), unpacked, nibble_lines(bytes));
        block.panel = unpacked;
      }
    }
    EpilogueBlock e = epilogue_;
    e.acc = acc;
    e.n = panel.channels;
    e.multiplier = multiplier_.data() + panel.channel;
    e.shift = shift_.data() + panel.channel;
    e.residual_multiplier = residual_multiplier_.data() + (residual_multiplier_.empty() ? 0 : panel.channel);
    e.residual_stride = e.y_stride = ld;

    // Blocks as even as possible: 49 rows in blocks of at most 6 are 4 of 6 and 5 of 5, not 8 of 6 and 1 of 1. The
    // epilogue takes several blocks at a time, as it has setup costs.
    const int64_t blocks = ceil_div(rows.count, most), least = rows.count / blocks, longer = rows.count % blocks;
    // Weights come from memory. While these rows are multiplied, their share of the next panel is prefetched evenly;
    // the other chunks and parts, most of which follow on the same thread, prefetch the rest.
    const auto following = std::min(static_cast<size_t>(i) + 1, panels_.size() - 1);
    const double next_bytes = static_cast<double>(panel_bytes(panels_[following]));
    const double fetched = next_bytes * static_cast<double>(rows.first) / static_cast<double>(rows.all);
    const double share = next_bytes * static_cast<double>(rows.count) / static_cast<double>(rows.all * blocks);
    block.prefetch_stride = static_cast<ptrdiff_t>(share / (double{1} * tap_count_ * steps_)) + 1;
    block.prefetch = packed_.data() + panels_[following].offset + static_cast<ptrdiff_t>(fetched);
    int64_t done = 0;
    for (int64_t b = 0, m0 = 0, m1 = 0; m0 < rows.count; b++, m0 = m1) {
      block.rows = rows.pointers + m0;
      m1 = m0 + (tier_.take ? tier_.take(block, rows.count - m0) : least + (b < longer));
      block.m = static_cast<int>(m1 - m0);
      block.acc = acc + (m0 - done) * kPanel;
      gemm(block);
      block.prefetch += static_cast<ptrdiff_t>(share);
      if (affine_) correct_zero_points(block, panel);
      if (m1 < rows.count && m1 - done + most <= kMaxRows) continue;
      const int64_t at = (rows.first + done) * ld + panel.channel;
      e.m = static_cast<int>(m1 - done);
      e.y = static_cast<uint8_t*>(y) + at * size_of(e.range.type);
      e.residual = residual ? static_cast<const uint8_t*>(residual) + at * size_of(e.residual_type) : nullptr;
      tier_.epilogue(e);
      done = m1;
    }
  }
  const ptrdiff_t back = group * (s.in_channels / s.groups);
  for (int64_t t = 0; t < tap_count_; t++) rows.taps[t] -= back;
  if (tier_.end) tier_.end();
}

// acc −= w_zero_point · Σ (x − x_zero_point)
void Convolution::correct_zero_points(const GemmBlock& block, const Panel& panel) const {
  alignas(64) int32_t sums[kMaxRows * kPanel];
  const int64_t taps = shape_.kh * shape_.kw * (shape_.in_channels / shape_.groups);
  int32_t init[kVector] = {};
  init[0] = add_wrapping(0, -int64_t{zero_point_} * taps);
  GemmBlock ones = block;
  ones.vectors = 1;
  ones.panel = ones_.data();
  ones.init = init;
  ones.acc = sums;
  for (int i = 0; i < block.m; i += tier_.rows[1]) {
    ones.rows = block.rows + i;
    ones.m = std::min(tier_.rows[1], block.m - i);
    ones.acc = sums + i * kPanel;
    tier_.gemm(ones);
  }
  for (int i = 0; i < block.m; i++)
    for (int n = 0; n < panel.channels; n++) {
      const int64_t correction = int64_t{w_zero_point_[static_cast<size_t>(panel.channel + n)]} * sums[i * kPanel];
      block.acc[i * kPanel + n] = add_wrapping(block.acc[i * kPanel + n], -correction);
    }
}

void Convolution::run_depthwise(const Plan& p, int64_t row0, int64_t row1, int64_t panel0, int64_t panel1,
                                const uint8_t* x, void* y, uint8_t* scratch) const {
  const ConvShape& s = shape_;
  const int64_t c = s.in_channels, padded_w = p.w + s.left + s.right;
  auto** columns = reinterpret_cast<const uint8_t**>(scratch);
  scratch += aligned(static_cast<size_t>(padded_w * s.kh) * sizeof(void*));
  uint8_t* const padding = scratch;
  std::memset(padding, zero_point_, static_cast<size_t>(c));
  uint8_t* const flipped = scratch + aligned(static_cast<size_t>(c));

  DepthwiseBlock b{};
  b.columns = columns;
  b.kh = static_cast<int>(s.kh), b.kw = static_cast<int>(s.kw);
  b.stride = static_cast<int>(s.stride_w), b.dilation = static_cast<int>(s.dilation_w);
  b.width = static_cast<int>(p.ow);
  b.channels = static_cast<int>(c);
  b.first = static_cast<int>(panel0 * kPanel);
  b.last = static_cast<int>(std::min(panel1 * kPanel, c));
  b.weights = packed_.data();
  b.init = init_.data();
  b.epilogue = epilogue_;
  b.epilogue.multiplier = multiplier_.data();
  b.epilogue.shift = shift_.data();
  b.epilogue.y_stride = c;
  for (int64_t row = row0; row < row1; row++) {
    const int64_t image = row / p.oh, oy = row % p.oh;
    for (int64_t r = 0; r < s.kh; r++) {
      const int64_t in = oy * s.stride_h - s.top + r * s.dilation_h;
      const bool inside = in >= 0 && in < p.h;
      const uint8_t* from = inside ? x + (image * p.h + in) * p.w * c : padding;
      if (inside && flip_) {
        uint8_t* const to = flipped + r * p.w * c;
        for (int64_t k = 0; k < p.w * c; k++) to[k] = from[k] ^ 0x80;
        from = to;
      }
      const uint8_t** column = columns + r;
      for (int64_t i = 0; i < s.left; i++, column += s.kh) *column = padding;
      for (int64_t i = 0; i < p.w; i++, column += s.kh) *column = inside ? from + i * c : padding;
      for (int64_t i = 0; i < s.right; i++, column += s.kh) *column = padding;
    }
    b.epilogue.y = static_cast<uint8_t*>(y) + row * p.ow * c * size_of(b.epilogue.range.type);
    tier_.depthwise(b);
  }
}

}  // namespace onnxq
