#include "cpu/operators/tile_plan.hpp"

namespace onnxq {
namespace {

constexpr int kMostSteps = 16;           // of a piece: 64 bytes
constexpr int64_t kPartCycles = 20'000;  // going parallel costs about 2 µs
constexpr int64_t kMostTileParts = 16;
constexpr int64_t kWeightBytes = 1 << 20;   // weights that stay in the second-level cache beside activations
constexpr int64_t kInputBytes = 768 << 10;  // of activations, in the second-level cache
constexpr int64_t kGroupBytes = 64 << 10;   // weights that are read again and again while others come from memory

}  // namespace

int tile_piece_steps(int64_t taps, int64_t steps) {
  const int64_t fewest = ceil_div(taps * steps, kMostSteps);
  for (int64_t n = ceil_div(steps, kMostSteps); taps * n <= fewest + fewest / 2 + 1; n++)
    if (steps % n == 0) return static_cast<int>(steps / n);
  return 0;
}

TileForm tile_form(const ConvShape& s) {
  TileForm form;
  if (s.groups != 1 || s.out_channels < kVector) return form;
  const int64_t row = s.kw * s.in_channels;
  const bool dilated = s.dilation_h > 1 || s.dilation_w > 1;
  if (s.kh > 1 && !dilated && 2 * row <= kStep * kMostSteps && s.in_channels <= kVector) {
    form.row_group = static_cast<int>(std::min({s.kh, int64_t{4}, kStep * kMostSteps / row}));
    form.tap_count = static_cast<int>(ceil_div(s.kh, form.row_group));
    form.steps = form.piece_steps = static_cast<int>(ceil_div(row * form.row_group, kStep));
    form.used = form.merged = true;
    return form;
  }
  form.phases = (s.stride_h > 1 || s.stride_w > 1) && s.in_channels % kStep == 0;
  if (form.phases && dilated) return {};
  form.merged = !form.phases && s.dilation_w == 1;
  const int64_t taps = form.merged ? s.kh : s.kh * s.kw;
  const int64_t steps = ceil_div(form.merged ? row : s.in_channels, kStep);
  form.tap_count = static_cast<int>(taps);
  form.steps = static_cast<int>(steps);
  form.piece_steps = tile_piece_steps(taps, steps);
  form.used = form.piece_steps > 0;
  return form.used ? form : TileForm{};
}

std::vector<Tile> tiles_of(int64_t n, int64_t oh, int64_t ow, const Spacing& s) {
  std::vector<Tile> tiles;
  const int64_t outputs = n * oh * ow;
  const auto place = [&](int64_t q) { return q / ow / oh * s.image + q / ow % oh * s.line + q % ow * s.pixel; };
  // The rows of the last tile end at the last output: memory behind it must not be read.
  const ptrdiff_t latest = outputs ? place(outputs - 1) - (kTileHeight - 1) * s.pixel : -1;
  const bool even = s.line % s.pixel == 0 && s.image % s.pixel == 0;
  if (outputs < kTileHeight || latest < (even ? 0 : s.pixel)) return tiles;
  tiles.reserve(static_cast<size_t>(outputs / kTileHeight + n * oh));
  for (int64_t q = 0; q < outputs;) {
    Tile tile{place(q), q, 0};
    if (tile.from > latest) tile.from -= ceil_div(tile.from - latest, s.pixel) * s.pixel;
    for (int64_t x = q % ow; q < outputs;) {
      const ptrdiff_t at = place(q) - tile.from, row = at / s.pixel;
      if (at % s.pixel || row >= kTileHeight) break;
      const int64_t run = std::min(ow - x, kTileHeight - row);
      tile.kept = static_cast<uint16_t>(tile.kept | ((1u << run) - 1) << row);
      q += run, x += run;
      if (x < ow) break;
      x = 0;
    }
    tiles.push_back(tile);
  }
  return tiles;
}

TileCut tile_cut(const TileWork& w) {
  const int64_t blocks = ceil_div(w.tiles, 2), pairs = ceil_div(w.panels, 2);
  const int64_t block_cycles = std::max<int64_t>(64 * w.pieces, w.residual ? 450 : 200);
  // A power of 2, which threads share evenly.
  int64_t parts = 1;
  while (parts < kMostTileParts && 2 * parts * kPartCycles <= blocks * w.panels * block_cycles) parts *= 2;
  TileCut cut{1, 1, 0, 0};
  if (w.by_channels) {
    cut.panel_parts = std::min(parts, pairs);
    while (pairs % cut.panel_parts) cut.panel_parts--;
    if (cut.panel_parts <= 3) cut.row_parts = std::min(blocks, ceil_div(parts, cut.panel_parts));
  } else {
    cut.row_parts = std::min(parts, blocks);
  }
  const int64_t part_tiles = 2 * ceil_div(blocks, cut.row_parts), part_panels = 2 * ceil_div(pairs, cut.panel_parts);
  cut.chunk = std::min(part_tiles, std::clamp<int64_t>(kInputBytes / w.row_bytes / 2 * 2, 32, 256));
  if (w.unpacks)
    cut.panels_at_a_time = 2;
  else if (part_panels * w.panel_bytes <= kWeightBytes)
    cut.panels_at_a_time = part_panels;
  else
    cut.panels_at_a_time = std::max<int64_t>(2, kGroupBytes / w.panel_bytes / 2 * 2);
  return cut;
}

}  // namespace onnxq
