// The product and the epilogue of a dense convolution in tiles. Included by amx.cpp only.
//
// A block is 2 tiles of rows by 2 vectors of channels, in 4 of the 8 tile registers; two blocks side by side make 64
// channels. The sums of 32 rows stay in the first-level cache while the next are multiplied: they are rescaled
// meanwhile, some rows in each step of the products.
#pragma once

#include "cpu/tiers/amx/row_rescaler.hpp"
#include "cpu/tiers/amx_tiles.hpp"

namespace onnxq {
namespace {

template <int N>
struct Count {
  static constexpr int value = N;
};

constexpr int kBlockRows = 2 * kTileRows;
constexpr ptrdiff_t kSumStride = kPanel * sizeof(int32_t);

// Sums that wait to be rescaled.
struct Waiting {
  const int32_t* acc = nullptr;  // [32][kPanel] and more
  uint32_t rows = 0;             // those that are outputs, in the order of the outputs; bit 0 is the row at acc
  uint8_t* y = nullptr;
  const uint8_t* residual = nullptr;
  int channel = 0;
};

// Rows 0 to 15 of tiles 0 to 3 are sums, 4 and 5 A, 6 and 7 B.
inline void configure(int steps) {
  TileConfig config = {};
  config.palette = 1;
  for (int t = 0; t < kTiles; t++) {
    config.rows[t] = static_cast<uint8_t>(t < 6 ? kTileRows : steps);
    config.row_bytes[t] = static_cast<uint16_t>(t == 4 || t == 5 ? steps * kStep : kTileBytes);
  }
  tile_configure(config);
}

// V: vectors of channels whose sums are rescaled together. 4: an even number of panels of 2 vectors; 1, 2: one panel.
template <Shift S, bool HasResidual, bool Signed, int V>
void convolve_as(const TileRun& run) {
  using Rescaler = RowRescaler<S, HasResidual, Signed, V>;
  constexpr int kSpare = Rescaler::kRows - 1;  // rows that a rescaling may read too many
  alignas(64) int32_t sums[2][(kBlockRows + kSpare) * kPanel];
  const TileRun b = run;  // a copy, which stores of bytes cannot alias
  const int pieces = b.piece_count;
  Rescaler rescaler(b.epilogue);
  Waiting waiting;
  int slot = 0;

  const int64_t all_steps = (b.tile_count + 1) / 2 * b.panel_count * pieces;
  const ptrdiff_t fetch = all_steps ? (b.prefetch_bytes / kTileBytes + all_steps - 1) / all_steps * kTileBytes : 0;
  const int8_t* next = b.prefetch;
  const int8_t* const next_end = b.prefetch + b.prefetch_bytes;

  // The next `count` waiting rows, in runs without a gap.
  const auto rescale = [&](int count) __attribute__((always_inline)) {
    while (count > 0 && waiting.rows) {
      const int gap = __builtin_ctz(waiting.rows);
      const int run_rows = __builtin_ctzll(~(uint64_t{waiting.rows} >> gap));
      const int now = run_rows < count ? run_rows : count;
      waiting.acc += gap * kPanel;
      for (int left = now; left > 0; left -= Rescaler::kRows) {
        const int rows = left < Rescaler::kRows ? left : Rescaler::kRows;
        rescaler.rows(waiting.acc, waiting.y, waiting.residual, rows);
        waiting.acc += rows * kPanel;
        waiting.y += rows * b.epilogue.y_stride;
        if (HasResidual) waiting.residual += rows * b.epilogue.residual_stride;
      }
      waiting.rows = static_cast<uint32_t>(uint64_t{waiting.rows} >> (gap + now));
      count -= now;
    }
  };

  // T tiles of rows, from a0 and a1 on, by one panel; `share` waiting rows in each step.
  const auto block = [&](auto tile_count, const uint8_t* a0, const uint8_t* a1, const int8_t* w, const int32_t* init,
                         int32_t* to, int share, bool load_a) __attribute__((always_inline)) {
    constexpr int T = decltype(tile_count)::value;
    constexpr bool kTwo = V > 1;  // vectors of channels
    constexpr ptrdiff_t kStride = kTileBytes * (kTwo ? 2 : 1);
    tile_load<0>(init, 0);
    if (kTwo) tile_load<1>(init + kVector, 0);
    if (T == 2) tile_load<2>(init, 0);
    if (T == 2 && kTwo) tile_load<3>(init + kVector, 0);
    for (int i = 0; i < pieces; i++, w += kStride * b.steps) {
      if (load_a) tile_load<4>(a0 + b.pieces[i], b.spacing);
      tile_load<6>(w, kStride);
      tile_dot<0, 4, 6>();
      if (T == 2) {
        if (load_a) tile_load<5>(a1 + b.pieces[i], b.spacing);
        tile_dot<2, 5, 6>();
      }
      if (kTwo) {
        tile_load<7>(w + kTileBytes, kStride);
        tile_dot<1, 4, 7>();
        if (T == 2) tile_dot<3, 5, 7>();
      }
      for (const int8_t* const until = next + fetch; next < until && next < next_end; next += kTileBytes)
        _mm_prefetch(next, _MM_HINT_T1);
      rescale(share);
    }
    tile_store<0>(to, kSumStride);
    if (kTwo) tile_store<1>(to + kVector, kSumStride);
    if (T == 2) tile_store<2>(to + kTileRows * kPanel, kSumStride);
    if (T == 2 && kTwo) tile_store<3>(to + kTileRows * kPanel + kVector, kSumStride);
  };

  // The channels from this panel on that are rescaled together.
  const auto multiply = [&](auto tile_count, const Tile* tiles, int panel) __attribute__((always_inline)) {
    constexpr int T = decltype(tile_count)::value;
    const uint8_t* const a0 = b.x + tiles[0].from;
    const uint8_t* const a1 = T == 2 ? b.x + tiles[1].from : a0;
    const int8_t* const w = b.panel + panel * b.panel_bytes;
    const int channel = panel * 2 * kVector;
    const int32_t* const init = b.init + channel;
    int32_t* const to = sums[slot];
    if (waiting.rows) rescaler.open(waiting.channel);
    const int steps = (V == 4 ? 2 : 1) * pieces, rows = __builtin_popcount(waiting.rows);
    const int share = (rows + steps * Rescaler::kRows - 1) / (steps * Rescaler::kRows) * Rescaler::kRows;
    // A single piece of k stays loaded for all panels.
    block(tile_count, a0, a1, w, init, to, share, pieces > 1 || panel == 0);
    if (V == 4) block(tile_count, a0, a1, w + b.panel_bytes, init + 2 * kVector, to + 2 * kVector, share, pieces > 1);
    rescale(kBlockRows);
    waiting.acc = to;
    waiting.rows = tiles[0].kept | (T == 2 ? uint32_t{tiles[1].kept} << kTileRows : 0);
    waiting.y = static_cast<uint8_t*>(b.epilogue.y) + tiles[0].output * b.epilogue.y_stride + channel;
    if (HasResidual)
      waiting.residual = static_cast<const uint8_t*>(b.epilogue.residual) +
                         tiles[0].output * b.epilogue.residual_stride + channel;
    waiting.channel = channel;
    slot ^= 1;
  };

  configure(b.steps);
  for (int64_t t = 0; t < b.tile_count; t += 2)
    for (int panel = 0; panel < b.panel_count; panel += 2) {
      if (t + 1 < b.tile_count)
        multiply(Count<2>{}, b.tiles + t, panel);
      else
        multiply(Count<1>{}, b.tiles + t, panel);
    }
  if (waiting.rows) rescaler.open(waiting.channel);
  rescale(kBlockRows);
  tile_release();
}

template <Shift S, bool HasResidual, bool Signed>
void convolve_vectors(const TileRun& b) {
  if (b.vectors == 1) return convolve_as<S, HasResidual, Signed, 1>(b);
  if (b.panel_count == 1) return convolve_as<S, HasResidual, Signed, 2>(b);
  return convolve_as<S, HasResidual, Signed, 4>(b);
}

template <Shift S, bool HasResidual>
void convolve_signed_or_not(const TileRun& b) {
  return b.epilogue.range.type == IntType::S8 ? convolve_vectors<S, HasResidual, true>(b)
                                              : convolve_vectors<S, HasResidual, false>(b);
}

template <Shift S>
void convolve_with_or_without(const TileRun& b) {
  return b.epilogue.residual ? convolve_signed_or_not<S, true>(b) : convolve_signed_or_not<S, false>(b);
}

void convolve(const TileRun& b) {
  const EpilogueBlock& e = b.epilogue;
  const bool zero_point = e.residual && (e.residual_zero_point != 0 || e.residual_type == IntType::S8);
  if (e.spare_bit && !zero_point) return convolve_with_or_without<Shift::kDoubled>(b);
  if (e.uniform_shift == 32) return convolve_with_or_without<Shift::k32>(b);
  return convolve_with_or_without<Shift::kVector>(b);
}

}  // namespace
}  // namespace onnxq
