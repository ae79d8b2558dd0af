// Dense convolutions by tiles.
#include <algorithm>
#include <cstring>

#include "cpu/common/sizes.hpp"
#include "cpu/operators/conv.hpp"

namespace onnxq {
namespace {

constexpr int64_t kAheadBytes = 256 << 10;  // of the next layer's weights, fetched while the last ones are multiplied
constexpr int64_t kMostCopied = 2;          // times the image: what parts copy together at most, if each copies its own
constexpr int64_t kFewBytes = 64 << 10;     // of weights: such a layer is too short to fetch another's

}  // namespace

void Convolution::plan_tiles(Plan& p) const {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!last_.tiles || last_.n != p.n || last_.h != p.h || last_.w != p.w)
      last_ = {p.n, p.h, p.w, std::make_shared<const std::vector<Tile>>(tiles_of(p.n, p.oh, p.ow, p.spacing))};
    if (!last_.tiles->empty()) p.tiles = last_.tiles;
  }
  if (!p.tiles) return;
  const auto packed = static_cast<int64_t>(packed_.size());
  TileWork work{};
  work.tiles = static_cast<int64_t>(p.tiles->size());
  work.panels = panel_count();
  work.pieces = form_.pieces();
  work.row_bytes = kTileHeight * std::max<int64_t>(p.spacing.pixel, shape_.in_channels);
  work.panel_bytes = ceil_div(packed, work.panels);
  work.by_channels = packed > p.n * p.h * p.w * shape_.in_channels;
  work.residual = !residual_multiplier_.empty();
  work.unpacks = nibbles_;
  const TileCut cut = tile_cut(work);
  p.row_parts = cut.row_parts, p.panel_parts = cut.panel_parts;
  p.chunk = cut.chunk;
  p.panels_at_a_time = cut.panels_at_a_time;
  // Planes of phases are far apart, and parts by channels would all copy the same. So would parts of long lines.
  p.own_copy = 0;
  if (copies_ && !form_.phases && p.panel_parts == 1) {
    const int64_t row_bytes = copy_row_bytes(p.w);
    int64_t most = 0, all = 0;
    for (int64_t part = 0; part < p.row_parts; part++) {
      const int64_t end = part_begin(work.tiles, part + 1, p.row_parts, kTileGrain);
      for (int64_t t = part_begin(work.tiles, part, p.row_parts, kTileGrain); t < end; t += p.chunk) {
        const Range rows = rows_read(p, t, std::min(t + p.chunk, end));
        most = std::max(most, rows.end - rows.begin);
        all += rows.end - rows.begin;
      }
    }
    if (all * row_bytes <= kMostCopied * p.n * p.spacing.image)
      p.own_copy = aligned(static_cast<size_t>(most * row_bytes) + kSlack);
  }
  p.scratch_bytes = p.own_copy + (p.own_copy ? p.copy_scratch : 0) +
                    aligned(static_cast<size_t>(form_.pieces()) * sizeof(ptrdiff_t)) +
                    aligned(static_cast<size_t>(tap_count_) * sizeof(ptrdiff_t)) + (nibbles_ ? unpacked_bytes() : 0);
}

// The rows of the copy that these tiles read. A row of a tile that is dropped may begin at the end of a row of the
// copy, and reads into the next.
Convolution::Range Convolution::rows_read(const Plan& p, int64_t tile0, int64_t tile1) const {
  const std::vector<Tile>& tiles = *p.tiles;
  const int64_t row_bytes = copy_row_bytes(p.w), all = p.n * p.spacing.image / row_bytes;
  const int64_t taps =
      form_.row_group ? int64_t{form_.row_group} * (tap_count_ - 1) + 1 : (shape_.kh - 1) * shape_.dilation_h + 1;
  const int64_t last = tiles[static_cast<size_t>(tile1 - 1)].from + (kTileHeight - 1) * p.spacing.pixel;
  return {tiles[static_cast<size_t>(tile0)].from / row_bytes, std::min(all, last / row_bytes + taps + 1)};
}

void Convolution::run_tiles(const Plan& p, int64_t tile0, int64_t tile1, int64_t panel0, int64_t panel1,
                            const uint8_t* x, const void* residual, void* y, uint8_t* scratch) const {
  const int64_t ld = shape_.out_channels;
  uint8_t* const own = scratch;
  scratch += p.own_copy;
  uint8_t* const copy_scratch = scratch;
  if (p.own_copy) scratch += p.copy_scratch;
  const int pieces = form_.pieces(), in_tap = pieces / tap_count_;
  auto* const offsets = reinterpret_cast<ptrdiff_t*>(scratch);
  scratch += aligned(static_cast<size_t>(pieces) * sizeof(ptrdiff_t));
  auto* const taps = reinterpret_cast<ptrdiff_t*>(scratch);
  auto* const unpacked =
      reinterpret_cast<int8_t*>(scratch + aligned(static_cast<size_t>(tap_count_) * sizeof(ptrdiff_t)));
  set_taps(p, taps);
  for (int i = 0; i < pieces; i++) offsets[i] = taps[i / in_tap] + ptrdiff_t{kStep} * form_.piece_steps * (i % in_tap);

  TileRun run{};
  run.x = x;
  run.spacing = p.spacing.pixel;
  run.pieces = offsets;
  run.piece_count = pieces;
  run.steps = form_.piece_steps;
  for (int64_t t = tile0; t < tile1; t += p.chunk) {
    const int64_t t1 = std::min(t + p.chunk, tile1);
    run.tiles = p.tiles->data() + t;
    run.tile_count = t1 - t;
    if (p.own_copy) {
      const Range rows = rows_read(p, t, t1);
      const int64_t row_bytes = copy_row_bytes(p.w);
      copy_rows(p, rows.begin, rows.end, x, own, copy_scratch);
      std::memset(own + (rows.end - rows.begin) * row_bytes, 0, kSlack);
      run.x = own;
      run.origin = rows.begin * row_bytes;
    }
    for (int64_t i = panel0, next = i; i < panel1; i = next) {
      const Panel& panel = panels_[static_cast<size_t>(i)];
      next = std::min(panel1, i + p.panels_at_a_time);
      if (panels_[static_cast<size_t>(next - 1)].vectors == 1 && next - i > 1) next--;  // a narrow one by itself
      if ((next - i) % 2 && next - i > 1) next--;
      run.panel_count = static_cast<int>(next - i);
      run.vectors = panel.vectors;
      run.panel_bytes = ptrdiff_t{kVector * kStep} * panel.vectors * tap_count_ * steps_;
      run.panel = packed_.data() + panel.offset;
      const auto end = next < panel_count() ? panels_[static_cast<size_t>(next)].offset : packed_.size();
      if (nibbles_) {
        run.panel = unpacked;
        for (int64_t k = i; k < next; k++)
          tier_.unpack4(reinterpret_cast<const uint8_t*>(packed_.data() + panels_[static_cast<size_t>(k)].offset),
                        unpacked + (k - i) * run.panel_bytes, nibble_lines(static_cast<size_t>(run.panel_bytes)));
      }
      // Weights come from memory: those that follow, of the next layer behind the last, are fetched meanwhile. The
      // other parts and chunks fetch the rest.
      const auto packed = static_cast<int64_t>(packed_.size());
      const int64_t bytes = end < packed_.size() ? static_cast<int64_t>(end - panel.offset)
                            : packed < kFewBytes ? 0
                                                 : std::min(kAheadBytes, packed);
      const auto all = static_cast<int64_t>(p.tiles->size());
      run.prefetch = packed_.data() + end + bytes * t / all;
      run.prefetch_bytes = bytes * (t1 - t) / all;

      run.init = init_.data() + panel.channel;
      EpilogueBlock& e = run.epilogue;
      e = epilogue_;
      e.n = static_cast<int>(std::min<int64_t>((next - i) * panel.vectors * kVector, ld - panel.channel));
      e.multiplier = multiplier_.data() + panel.channel;
      e.shift = shift_.data() + panel.channel;
      e.residual_multiplier = residual_multiplier_.data() + (residual_multiplier_.empty() ? 0 : panel.channel);
      e.residual_stride = e.y_stride = ld;
      e.y = static_cast<uint8_t*>(y) + panel.channel * size_of(e.range.type);
      e.residual = residual ? static_cast<const uint8_t*>(residual) + panel.channel : nullptr;
      tier_.convolve(run);
    }
  }
}

}  // namespace onnxq
