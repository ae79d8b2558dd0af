// The product and the epilogue of a dense convolution in tiles. Included by amx.cpp only.
//
// A block is 2 tiles of rows by 2 vectors of channels, in 4 of the 8 tile registers; two blocks side by side make 64
// channels. The sums of 32 rows stay in the first-level cache while the next are multiplied: they are rescaled
// meanwhile, some rows in each step of the products.
#pragma once

#include "cpu/tiers/amx/row_copier.hpp"
#include "cpu/tiers/amx/row_rescaler.hpp"
#include "cpu/tiers/amx/tiles.hpp"

namespace onnxq {
namespace {

constexpr int kBlockRows = 2 * kTileRows;
// In a step. Where weights take longer to arrive than to be multiplied, the hardware's own prefetching is faster.
constexpr ptrdiff_t kMostFetched = 12 * kTileBytes;
// In the first-level cache, from one pair of tiles to the next. More would displace the rows too.
constexpr ptrdiff_t kMostKeptWeights = 40 << 10;
constexpr ptrdiff_t kSumStride = kPanel * sizeof(int32_t);

// Sums that wait to be rescaled, in runs of rows that are outputs.
struct Waiting {
  int32_t* acc = nullptr;  // the next row
  int run = 0;             // rows up to the next gap
  uint32_t rest = 0;       // rows that are outputs, the one behind the run first
  uint8_t* y = nullptr;
  const uint8_t* residual = nullptr;
  const int32_t* terms = nullptr;  // of these rows
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

template <int V>
ONNXQ_INLINE void subtract(int32_t* acc, int32_t term) {
  const __m512i terms = _mm512_set1_epi32(term);
  each<V>(ONNXQ_EACH {
    int32_t* const at = acc + index.value * kVector;
    _mm512_store_si512(at, _mm512_sub_epi32(_mm512_load_si512(at), terms));
  });
}

// The next `count` waiting rows.
template <class Rescaler>
ONNXQ_INLINE void rescale(const Rescaler& rescaler, Waiting& w, int count) {
  for (;;) {
    int now = w.run < count ? w.run : count;
    w.run -= now;
    count -= now;
    if (w.terms) {
      for (int i = 0; i < now; i++) subtract<Rescaler::kVectors>(w.acc + i * kPanel, w.terms[i]);
      w.terms += now;
    }
    for (; now > 0; now -= Rescaler::kRows) {
      const int rows = Rescaler::kRows == 1 || now < Rescaler::kRows ? now : Rescaler::kRows;
      rescaler.rows(w.acc, w.y, w.residual, rows);
      const int done = Rescaler::kRows == 1 ? 1 : rows;
      w.acc += done * kPanel;
      w.y += done * rescaler.y_stride();
      w.residual += done * rescaler.residual_stride();
    }
    if (count <= 0 || !w.rest) return;
    const int gap = __builtin_ctz(w.rest);
    w.acc += gap * kPanel;
    w.run = __builtin_ctzll(~(uint64_t{w.rest} >> gap));
    w.rest = static_cast<uint32_t>(uint64_t{w.rest} >> (gap + w.run));
  }
}

template <int T>
ONNXQ_INLINE void load_weights(const int8_t* w, ptrdiff_t stride, bool streamed) {
  if (streamed)
    tile_load_streamed<T>(w, stride);
  else
    tile_load<T>(w, stride);
}

// Bytes that are fetched ahead, some in each step.
struct Ahead {
  const int8_t *next, *end;
  ptrdiff_t step;
};

// T tiles of rows, from a0 and a1 on, by a panel of U vectors at w; `share` waiting rows in each step.
template <int T, int U, class Rescaler>
ONNXQ_INLINE void multiply_block(const TileRun& b, const uint8_t* a0, const uint8_t* a1, const int8_t* w,
                                 const int32_t* init, int32_t* to, bool load_a, const Rescaler& rescaler,
                                 Waiting& waiting, int share, Ahead& ahead) {
  constexpr ptrdiff_t kStride = kTileBytes * U;
  const ptrdiff_t spacing = b.spacing, piece_bytes = kStride * b.steps;
  tile_load<0>(init, 0);
  if (U == 2) tile_load<1>(init + kVector, 0);
  if (T == 2) tile_load<2>(init, 0);
  if (T == 2 && U == 2) tile_load<3>(init + kVector, 0);
  const bool streamed = b.panel_count * b.panel_bytes > kMostKeptWeights;
  const ptrdiff_t* const end = b.pieces + b.piece_count;
  for (const ptrdiff_t* piece = b.pieces; piece < end; piece++, w += piece_bytes) {
    if (load_a) tile_load<4>(a0 + *piece, spacing);
    load_weights<6>(w, kStride, streamed);
    tile_dot<0, 4, 6>();
    if (T == 2) {
      if (load_a) tile_load<5>(a1 + *piece, spacing);
      tile_dot<2, 5, 6>();
    }
    if (U == 2) {
      load_weights<7>(w + kTileBytes, kStride, streamed);
      tile_dot<1, 4, 7>();
      if (T == 2) tile_dot<3, 5, 7>();
    }
    for (const int8_t* const until = ahead.next + ahead.step; ahead.next < until && ahead.next < ahead.end;
         ahead.next += kTileBytes)
      _mm_prefetch(ahead.next, _MM_HINT_T1);
    rescale(rescaler, waiting, share);
  }
  tile_store<0>(to, kSumStride);
  if (U == 2) tile_store<1>(to + kVector, kSumStride);
  if (T == 2) tile_store<2>(to + kTileRows * kPanel, kSumStride);
  if (T == 2 && U == 2) tile_store<3>(to + kTileRows * kPanel + kVector, kSumStride);
}

// T tiles of rows by the channels from this panel on that are rescaled together. Their sums are waiting then, in `to`.
template <int T, int V, class Rescaler>
ONNXQ_INLINE void multiply_tiles(const TileRun& b, const Tile* tiles, int panel, int32_t* to, Rescaler& rescaler,
                                 Waiting& waiting, int share, Ahead& ahead) {
  constexpr int U = V > 1 ? 2 : 1;
  const uint8_t* const a0 = b.x + (tiles[0].from - b.origin);
  const uint8_t* const a1 = T == 2 ? b.x + (tiles[1].from - b.origin) : a0;
  const int8_t* const w = b.panel + panel * b.panel_bytes;
  const int channel = panel * U * kVector;
  const int32_t* const init = b.init + channel;
  const bool one_piece = b.piece_count == 1;  // it stays loaded for all panels
  rescaler.open(b.epilogue, waiting.channel);
  multiply_block<T, U>(b, a0, a1, w, init, to, !one_piece || panel == 0, rescaler, waiting, share, ahead);
  if (V == 4)
    multiply_block<T, U>(b, a0, a1, w + b.panel_bytes, init + U * kVector, to + U * kVector, !one_piece, rescaler,
                         waiting, share, ahead);
  waiting.acc = to;
  waiting.run = 0;
  waiting.rest = tiles[0].kept | (T == 2 ? uint32_t{tiles[1].kept} << kTileRows : 0);
  waiting.y = static_cast<uint8_t*>(b.epilogue.y) + tiles[0].output * rescaler.y_stride() + channel * Rescaler::kBytes;
  waiting.residual =
      static_cast<const uint8_t*>(b.epilogue.residual) + tiles[0].output * rescaler.residual_stride() + channel;
  waiting.terms = b.row_terms ? b.row_terms + tiles[0].output : nullptr;
  waiting.channel = channel;
}

// The rescaler's vectors of channels are those whose sums are written together. 4: an even number of panels of 2
// vectors; 1, 2: one panel.
template <class Rescaler>
void convolve_as(const TileRun& run) {
  constexpr int V = Rescaler::kVectors;
  constexpr int kSpare = Rescaler::kRows - 1;  // rows that a rescaling may read too many
  alignas(64) int32_t sums[2][(kBlockRows + kSpare) * kPanel];
  const TileRun b = run;  // a copy, which stores of bytes cannot alias
  Rescaler rescaler(b.epilogue);
  Waiting waiting;
  int slot = 0;
  // Rows that are rescaled in each step, so that all are before their memory is needed again.
  const int steps = (V == 4 ? 2 : 1) * b.piece_count;
  const int share = (kBlockRows + steps * Rescaler::kRows - 1) / (steps * Rescaler::kRows) * Rescaler::kRows;
  const int64_t all_steps = (b.tile_count + 1) / 2 * b.panel_count * b.piece_count;
  const ptrdiff_t fetch = all_steps ? (b.prefetch_bytes / kTileBytes + all_steps - 1) / all_steps * kTileBytes : 0;
  Ahead ahead{b.prefetch, fetch > kMostFetched ? b.prefetch : b.prefetch + b.prefetch_bytes, fetch};
  configure(b.steps);
  for (int64_t t = 0; t < b.tile_count; t += 2)
    for (int panel = 0; panel < b.panel_count; panel += 2, slot ^= 1) {
      if (t + 1 < b.tile_count)
        multiply_tiles<2, V>(b, b.tiles + t, panel, sums[slot], rescaler, waiting, share, ahead);
      else
        multiply_tiles<1, V>(b, b.tiles + t, panel, sums[slot], rescaler, waiting, share, ahead);
    }
  rescaler.open(b.epilogue, waiting.channel);
  rescale(rescaler, waiting, kBlockRows);
  tile_release();
}

template <Shift S, bool HasResidual, bool Signed>
void convolve_vectors(const TileRun& b) {
  if (b.vectors == 1) return convolve_as<RowRescaler<S, HasResidual, Signed, 1>>(b);
  if (b.panel_count == 1) return convolve_as<RowRescaler<S, HasResidual, Signed, 2>>(b);
  return convolve_as<RowRescaler<S, HasResidual, Signed, 4>>(b);
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
  if (e.identity && b.vectors == 1) return convolve_as<RowCopier<1>>(b);
  if (e.identity) return b.panel_count == 1 ? convolve_as<RowCopier<2>>(b) : convolve_as<RowCopier<4>>(b);
  const bool zero_point = e.residual && (e.residual_zero_point != 0 || e.residual_type == IntType::S8);
  if (e.residual && !e.one_residual_multiplier) return convolve_with_or_without<Shift::kVector>(b);
  if (e.spare_bit && !zero_point) return convolve_with_or_without<Shift::kDoubled>(b);
  if (e.uniform_shift == 32) return convolve_with_or_without<Shift::k32>(b);
  return convolve_with_or_without<Shift::kVector>(b);
}

}  // namespace
}  // namespace onnxq
