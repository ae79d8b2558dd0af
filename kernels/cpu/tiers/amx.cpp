// AMX: a tile holds 16 rows of 64 bytes, and tdpbusd multiplies 16 rows of A (64 values of k each) by 16 columns of B.
//
// GEMM: two tiles of rows by two vectors of channels at a time; 4 of the 8 tiles are accumulators. The panel of weights
// already has the layout of B, 4 consecutive values of k per channel, with the panel's width as its row stride. Tiles
// of A are loaded straight from the image where rows are equally spaced; at the end of an image row the spacing grows
// by whole pixels, which are computed too and discarded. Where that would waste much, or read memory outside the image,
// the rows are copied into scratch memory first.
//
// Dense convolutions with weights are in amx/convolve.hpp; this is for matrices of activations, and for images of fewer
// than 16 pixels. Everything else is that of AVX-512 VNNI, and so is the GEMM of very few rows.
#include <immintrin.h>

#include "cpu/elementwise/tables.hpp"
#include "cpu/tiers/amx/convolve.hpp"
#include "cpu/tiers/amx/interleave_rows.hpp"
#include "cpu/tiers/amx/tiles.hpp"
#include "cpu/tiers/tier.hpp"

namespace onnxq {
namespace {

constexpr int kFewRows = 4;                             // that VNNI multiplies just as fast
constexpr int kGoodRows = 12;                           // of 16; from here on, discarding rows costs less than copying
constexpr int kPieces = 16;                             // of k, copied at a time
constexpr int kDirectPieces = 64;                       // multiplied at a time where nothing is copied
constexpr int kScratchRow = kPieces * kTileBytes + 64;  // bytes; not a power of two: rows would share cache sets

// How k, of all taps together, is cut into pieces of equal length: one tile configuration must fit them all.
struct Cut {
  int steps;  // of a piece, at most 16
  int pieces;
  bool direct;  // no piece spans two taps, so rows need not be copied
  int total;    // steps of all taps
  // Where a piece begins. If pieces overlap, the last one reaches back; A has zeros there.
  int begin(int piece) const { return piece * steps < total - steps ? piece * steps : total - steps; }
};

Cut cut_of(int tap_count, int tap_steps) {
  const int total = tap_count * tap_steps, fewest = (total + kTileRows - 1) / kTileRows;
  for (int n = (tap_steps + kTileRows - 1) / kTileRows; tap_count * n <= fewest + fewest / 3 + 1; n++)
    if (tap_steps % n == 0) return {tap_steps / n, tap_count * n, true, total};
  return {(total + fewest - 1) / fewest, fewest, false, total};
}

// Tiles 0 to 3: sums. 4 and 5: A. 6 and 7: B.
void begin(int tap_count, int tap_steps) { configure(cut_of(tap_count, tap_steps).steps); }

void end() { tile_release(); }

// Up to 16 rows of a block as a tile of A, in the order of their addresses.
struct RowTile {
  int count;      // rows of the block
  bool gathered;  // otherwise they start at `base`, `stride` bytes apart
  const uint8_t* base;
  ptrdiff_t stride;
  uint8_t place[kTileRows];  // the tile's row of each row of the block
};

// The rows that one tile takes, from row r of n on. Memory is read from the first of the n rows to the last only.
RowTile row_tile(const uint8_t* const* rows, int r, int n, bool direct) {
  RowTile tile;
  const int left = n - r;
  const uint8_t* const first = rows[r];
  const ptrdiff_t stride = left > 1 ? rows[r + 1] - first : r > 0 ? first - rows[r - 1] : 0;
  int count = 1, place = 0;
  tile.place[0] = 0;
  for (const uint8_t* at = first; stride > 0 && count < left;) {
    while (at < rows[r + count] && place < kTileRows) at += stride, place++;
    if (place == kTileRows || at != rows[r + count]) break;
    tile.place[count++] = static_cast<uint8_t>(place);
  }
  tile.stride = stride;
  tile.base = first;
  // The rows after the last may be outside the image: then the tile begins earlier.
  const ptrdiff_t missing = kTileRows - 1 - tile.place[count - 1];
  if (rows[n - 1] - first < (kTileRows - 1) * stride) {
    tile.base -= missing * stride;
    for (int i = 0; i < count; i++) tile.place[i] = static_cast<uint8_t>(tile.place[i] + missing);
  }
  tile.count = count;
  tile.gathered = !direct || stride <= 0 || tile.base < rows[0] || (count < kGoodRows && count < left);
  if (tile.gathered) {
    tile.count = left < kTileRows ? left : kTileRows;
    for (int i = 0; i < tile.count; i++) tile.place[i] = static_cast<uint8_t>(i);
  }
  return tile;
}

int take(const GemmBlock& b, int64_t count) {
  const int n = count < kMaxRows ? static_cast<int>(count) : kMaxRows;
  const bool direct = cut_of(b.tap_count, b.steps).direct;
  const int first = row_tile(b.rows, 0, n, direct).count;
  return first < n ? first + row_tile(b.rows, first, n, direct).count : first;
}

// Copies pieces [piece0, piece1) of some rows, one after the other.
void gather(const GemmBlock& b, const Cut& cut, const uint8_t* const* rows, int count, int piece0, int piece1,
            uint8_t* scratch) {
  const ptrdiff_t tap_bytes = ptrdiff_t{kStep} * b.steps, piece_bytes = ptrdiff_t{kStep} * cut.steps;
  for (int piece = piece0; piece < piece1; piece++) {
    uint8_t* to = scratch + piece_bytes * (piece - piece0);
    ptrdiff_t k = ptrdiff_t{kStep} * cut.begin(piece);
    const ptrdiff_t end = k + piece_bytes;
    if (const ptrdiff_t counted = piece_bytes * piece - k) {  // bytes that the previous piece has counted
      for (int i = 0; i < count; i++)
        _mm512_mask_storeu_epi8(to + i * kScratchRow, first_bytes(counted), _mm512_setzero_si512());
      k += counted;
      to += counted;
    }
    while (k < end) {
      const ptrdiff_t tap = k / tap_bytes, at = k % tap_bytes;
      const ptrdiff_t n = tap_bytes - at < end - k ? tap_bytes - at : end - k;
      const __mmask64 mask = first_bytes(n);
      const ptrdiff_t from = b.taps[tap] + at;
      for (int i = 0; i < count; i++)
        _mm512_mask_storeu_epi8(to + i * kScratchRow, mask, _mm512_maskz_loadu_epi8(mask, rows[i] + from));
      k += n;
      to += n;
    }
  }
}

// A tile of rows as an operand.
struct Operand {
  const uint8_t* base;
  ptrdiff_t stride;
  const ptrdiff_t* offsets;  // of the pieces
  int32_t* sums;             // [16][kPanel]
};

struct Pieces {
  int count;
  const int8_t* next;              // what to prefetch during the first of them
  ptrdiff_t next_bytes;            // and how much in each
  const int8_t* b[kDirectPieces];  // the weights of each, first vector
};

// Two vectors of channels, or one, from vector v on; the first of a panel prefetch what comes next. fresh: the sums
// start from init, otherwise from their current values.
template <int Tiles, int Vectors>
void multiply(const Operand* a, const Pieces& pieces, int v, ptrdiff_t stride, const int32_t* init, bool fresh) {
  const auto from = [&](int tile, int vector) -> const void* {
    return fresh ? init + kVector * vector : a[tile].sums + kVector * vector;
  };
  const ptrdiff_t from_stride = fresh ? 0 : kSumStride;
  tile_load<0>(from(0, v), from_stride);
  if (Vectors == 2) tile_load<1>(from(0, v + 1), from_stride);
  if (Tiles == 2) tile_load<2>(from(1, v), from_stride);
  if (Tiles == 2 && Vectors == 2) tile_load<3>(from(1, v + 1), from_stride);
  const ptrdiff_t fetch = v == 0 ? pieces.next_bytes : 0;
  const int8_t* next = pieces.next;
  for (int i = 0; i < pieces.count; i++, next += fetch) {
    for (ptrdiff_t at = 0; at < fetch; at += kTileBytes) _mm_prefetch(next + at, _MM_HINT_T1);
    const int8_t* const b = pieces.b[i] + kTileBytes * v;
    tile_load<6>(b, stride);
    if (Vectors == 2) tile_load<7>(b + kTileBytes, stride);
    tile_load<4>(a[0].base + a[0].offsets[i], a[0].stride);
    tile_dot<0, 4, 6>();
    if (Vectors == 2) tile_dot<1, 4, 7>();
    if (Tiles == 2) {
      tile_load<5>(a[1].base + a[1].offsets[i], a[1].stride);
      tile_dot<2, 5, 6>();
      if (Vectors == 2) tile_dot<3, 5, 7>();
    }
  }
  tile_store<0>(a[0].sums + kVector * v, kSumStride);
  if (Vectors == 2) tile_store<1>(a[0].sums + kVector * (v + 1), kSumStride);
  if (Tiles == 2) tile_store<2>(a[1].sums + kVector * v, kSumStride);
  if (Tiles == 2 && Vectors == 2) tile_store<3>(a[1].sums + kVector * (v + 1), kSumStride);
}

template <int Tiles>
void multiply_panel(const GemmBlock& b, const Operand* a, const Pieces& pieces, bool fresh) {
  const ptrdiff_t stride = ptrdiff_t{kTileBytes} * b.vectors;
  int v = 0;
  for (; v + 2 <= b.vectors; v += 2) multiply<Tiles, 2>(a, pieces, v, stride, b.init, fresh);
  if (v < b.vectors) multiply<Tiles, 1>(a, pieces, v, stride, b.init, fresh);
}

// The rows of the block that one or two tiles hold, from row r on.
void gemm_tiles(const GemmBlock& b, const Cut& cut, const RowTile* tiles, int tile_count, int r) {
  alignas(64) uint8_t scratch[2][kTileRows * kScratchRow];
  alignas(64) int32_t spare[2][kTileRows * kPanel];  // sums of tiles that also hold rows outside the block
  ptrdiff_t direct_offsets[kDirectPieces], scratch_offsets[kPieces];
  const int begins[2] = {r, r + tiles[0].count};
  Operand a[2];
  for (int t = 0; t < tile_count; t++) {
    const RowTile& tile = tiles[t];
    int32_t* const sums = tile.count == kTileRows ? b.acc + begins[t] * kPanel : spare[t];
    if (tile.gathered)
      a[t] = {scratch[t], kScratchRow, scratch_offsets, sums};
    else
      a[t] = {tile.base, tile.stride, direct_offsets, sums};
  }
  const bool gathers = tiles[0].gathered || (tile_count == 2 && tiles[1].gathered);
  for (int i = 0; i < kPieces; i++) scratch_offsets[i] = ptrdiff_t{kStep} * cut.steps * i;

  const int most = gathers ? kPieces : kDirectPieces;
  const int tap_pieces = cut.direct ? b.steps / cut.steps : 1;
  for (int piece0 = 0; piece0 < cut.pieces; piece0 += most) {
    const int piece1 = cut.pieces - piece0 < most ? cut.pieces : piece0 + most;
    Pieces pieces;
    pieces.count = piece1 - piece0;
    pieces.next_bytes = b.prefetch_stride * cut.steps;
    pieces.next = b.prefetch + pieces.next_bytes * piece0;
    for (int i = 0, tap = piece0 / tap_pieces, in_tap = piece0 % tap_pieces; i < pieces.count; i++) {
      pieces.b[i] = b.panel + ptrdiff_t{kTileBytes} * b.vectors * cut.begin(piece0 + i);
      if (!cut.direct) continue;
      direct_offsets[i] = b.taps[tap] + ptrdiff_t{kStep} * cut.steps * in_tap;
      if (++in_tap == tap_pieces) in_tap = 0, tap++;
    }
    for (int t = 0; t < tile_count; t++)
      if (tiles[t].gathered) gather(b, cut, b.rows + begins[t], tiles[t].count, piece0, piece1, scratch[t]);
    if (tile_count == 2)
      multiply_panel<2>(b, a, pieces, piece0 == 0);
    else
      multiply_panel<1>(b, a, pieces, piece0 == 0);
  }

  for (int t = 0; t < tile_count; t++) {
    if (tiles[t].count == kTileRows) continue;
    for (int i = 0; i < tiles[t].count; i++)
      for (int v = 0; v < b.vectors; v++) {
        const __m512i sums = _mm512_load_si512(spare[t] + tiles[t].place[i] * kPanel + kVector * v);
        _mm512_store_si512(b.acc + (begins[t] + i) * kPanel + kVector * v, sums);
      }
  }
}

void gemm(const GemmBlock& b) {
  if (b.m <= kFewRows) return tiers::avx512vnni.gemm(b);
  const Cut cut = cut_of(b.tap_count, b.steps);
  for (int r = 0; r < b.m;) {
    RowTile tiles[2] = {row_tile(b.rows, r, b.m, cut.direct), {}};
    const int next = r + tiles[0].count;
    const bool two = next < b.m;
    if (two) tiles[1] = row_tile(b.rows, next, b.m, cut.direct);
    gemm_tiles(b, cut, tiles, two ? 2 : 1, r);
    r = next + tiles[1].count;
  }
}

int64_t peak(int64_t repeats) {
  constexpr int64_t kMacs = 4 * kTileRows * kTileRows * kTileBytes, kInner = 1'000'000 / kMacs;
  begin(1, kTileRows);
  // Not zeroed: products of zeroed tiles take the same time whatever the core's other thread does.
  alignas(64) static const uint8_t numbers[kTileBytes] = {3, 2, 7, 1, 5};
  tile_load<4>(numbers, 0);
  tile_load<5>(numbers, 0);
  tile_load<6>(numbers, 0);
  tile_load<7>(numbers, 0);
  for (int64_t i = 0; i < repeats * kInner; i++) {
    tile_dot<0, 4, 6>();
    tile_dot<1, 4, 7>();
    tile_dot<2, 5, 6>();
    tile_dot<3, 5, 7>();
  }
  end();
  return repeats * kInner * kMacs;
}

}  // namespace

const Tier tiers::amx = {
    {0, kMaxRows, kMaxRows, kMaxRows, kMaxRows},
    gemm,
    [](const EpilogueBlock& e) { tiers::avx512vnni.epilogue(e); },
    [](const uint8_t* src, int8_t* dst, size_t lines) { tiers::avx512vnni.unpack4(src, dst, lines); },
    [](const GemmBlock& b) { tiers::avx512vnni.gemm4(b); },
    [](const int8_t* weights, int kh, int kw, int channels, int8_t* packed) {
      return tiers::avx512vnni.pack_depthwise(weights, kh, kw, channels, packed);
    },
    [](const DepthwiseBlock& b) { tiers::avx512vnni.depthwise(b); },
    true,
    elementwise_avx512,
    peak,
    begin,
    end,
    take,
    convolve,
    interleave_rows,
    &tiers::avx512vnni,
};

}  // namespace onnxq
