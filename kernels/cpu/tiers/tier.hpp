// The tiers of kernels: one file per instruction set, compiled with that set's flags only. The choice is made at run
// time from what is compiled in and what the CPU supports; the environment variable ONNXQ_ISA overrides it.
//
// Files compiled for an instruction set must not instantiate inline functions or templates that other files instantiate
// too (those of the standard library included): the linker keeps one copy, which may then need an instruction that the
// CPU lacks.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/common/rescale.hpp"

namespace onnxq {

struct Elementwise;

constexpr int kPanel = 64;          // most channels of a panel, and the stride of the rows of accumulators
constexpr int kVector = 16;         // channels are handled in groups of this many
constexpr int kMaxRows = 32;        // most rows of a block, over all tiers
constexpr int kTileHeight = 16;     // rows of a tile
constexpr int kMostTileShift = 12;  // see Tier::convolve
constexpr int kStep = 4;            // consecutive k values stored together for each channel

// A block of accumulators: acc[i][n] = init[n] + Σ over taps and k of rows[i][taps[t] + k] · panel[t][k / 4][n][k % 4].
struct GemmBlock {
  const uint8_t* const* rows;  // `m` of them, ascending, within one image: the memory between them may be read
  const ptrdiff_t* taps;       // byte offsets from a row to the start of each tap
  int m;
  int tap_count;
  int steps;                  // of kStep values, in each tap
  int vectors;                // of kVector channels, 1 to 4
  const int8_t* panel;        // [tap][step][vectors * 16][4]
  const int32_t* init;        // [vectors * 16]
  int32_t* acc;               // [m][kPanel], 64-byte aligned
  const int8_t* prefetch;     // needed next: a step may fetch the cache line here, the next step
  ptrdiff_t prefetch_stride;  // the line this many bytes further, and so on
  bool pairs_fit = false;     // 255 times two weights, of k and k + 1 for even k, fit 16 bits together, of each sign
};

// Rescales a block of accumulators and writes it: y = sat(((acc·b + (r − zp_r)·b_r + 2^(c−1)) >> c) + zp).
struct EpilogueBlock {
  const int32_t* acc;  // [m][kPanel]
  int m;
  int n;                               // channels, 1 to kPanel
  const int32_t* multiplier;           // [kPanel], zero beyond n
  const int32_t* shift;                // [kPanel], 1 to 62 even beyond n
  const int32_t* residual_multiplier;  // [kPanel]
  const void* residual;                // null: none
  ptrdiff_t residual_stride;           // in elements
  IntType residual_type;
  int32_t residual_zero_point;
  int residual_shift;  // k; non-zero for 8-bit residuals only
  OutputRange range;
  void* y;
  ptrdiff_t y_stride;            // in elements
  bool interleaved;              // channels of acc, multiplier and shift are in the order of `interleave` below
  bool identity;                 // y is acc itself: int32, nothing to scale or saturate
  int uniform_shift;             // the shift of all channels, 0 where they differ
  bool narrow;                   // the scaled sum is proven to fit int32, zero point included
  bool one_residual_multiplier;  // the same for all channels
  bool one_panel;                // TileRun only: multiplier and shift have kPanel values, those of every panel
  bool spare_bit;                // the shift is 32 and doubled multipliers still fit int32: 2·multiplier, and
                                 // 2^(residual_shift + 1)·residual_multiplier of an 8-bit residual
};

// Channels [first, last) of a row of output pixels of a depthwise convolution. Pixel x takes the columns
// x·stride + j·dilation, j < kw.
struct DepthwiseBlock {
  const uint8_t* const* columns;  // [padded width][kh]: the first channel of each input pixel
  int kh, kw, stride, dilation;
  int width;  // output pixels
  int channels;
  int first, last;         // multiples of kPanel, or last = channels
  const int8_t* weights;   // of all channels, as the tier packed them
  const int32_t* init;     // [channels rounded up to kPanel], in the tier's order of channels
  EpilogueBlock epilogue;  // of the first channels; multiplier and shift as long and in the same order as init
};

// 16 equally spaced rows of a product, in the order of the outputs.
struct Tile {
  ptrdiff_t from;  // its first row, in bytes
  int64_t output;  // the output pixel of the first row that is one
  uint16_t kept;   // bit r: row r is an output; the others lie between the ends of image rows
};

// Tiles of rows by panels of channels of a dense convolution, sums and epilogue.
struct TileRun {
  const uint8_t* x;
  ptrdiff_t origin;   // where x is in the memory that positions of tiles refer to
  ptrdiff_t spacing;  // bytes between the rows of a tile
  const Tile* tiles;  // the outputs of each follow those of the one before
  int64_t tile_count;
  const ptrdiff_t* pieces;  // of k: bytes from a row to each
  int piece_count;
  int steps;            // of kStep values in each piece, 1 to 16
  const int8_t* panel;  // [panel][piece][step][vectors * 16][4]
  ptrdiff_t panel_bytes;
  int panel_count;         // 1, or an even number of panels of 2 vectors
  int vectors;             // of each panel, 1 or 2
  const int8_t* prefetch;  // weights needed next, fetched evenly over the run
  ptrdiff_t prefetch_bytes;
  const int32_t* init;       // [panel][vectors * 16]
  const int32_t* row_terms;  // [output]: less than the sums by this much, wrapping; null: nothing
  EpilogueBlock
      epilogue;  // of output pixel 0 and the channels of all panels: n may exceed kPanel; acc and m are unused
};

// Rows of an image beside each other: to[i][row] = from[row][i] ^ flip for pixels i.
struct InterleavedRows {
  const uint8_t* const* from;  // 2 to 4 rows
  int rows;
  int pixel;  // bytes of a pixel, up to 16; rows * pixel is at most 64
  int64_t count;
  uint8_t flip;
  const uint8_t* places;  // [64]; see interleave_place
  uint8_t* to;
};

// Where byte i of the result comes from, in vectors that hold 32 bytes of each row.
static inline uint8_t interleave_place(int i, int rows, int pixel) {
  return static_cast<uint8_t>(i % (rows * pixel) / pixel * 32 + i / (rows * pixel) * pixel + i % pixel);
}

// Position p of an interleaved panel holds channel interleave(p): the order that unpacking bytes within 128-bit lanes
// yields.
static inline int interleave(int p) { return (p % kVector) / 4 * kVector + p / kVector * 4 + p % 4; }

// What a tier provides.
struct Tier {
  int rows[5];  // most rows of a block of 1 to 4 vectors; rows[0] is unused
  void (*gemm)(const GemmBlock&);
  void (*epilogue)(const EpilogueBlock&);
  // Nibbles to bytes. A line of 64 bytes of src holds two lines of dst: the first in its low nibbles, the second in its
  // high ones. lines: of src. dst: 128 bytes for each of them.
  void (*unpack4)(const uint8_t* src, int8_t* dst, size_t lines);
  // GEMM of one tap with the panel in nibbles, laid out as for unpack4, for up to rows[vectors] rows; null where
  // unpacking first is as good.
  void (*gemm4)(const GemmBlock&);
  // Packs depthwise weights [channels][kh][kw] and returns the size in bytes; packed may be null.
  size_t (*pack_depthwise)(const int8_t* weights, int kh, int kw, int channels, int8_t* packed);
  void (*depthwise)(const DepthwiseBlock&);
  bool interleaved;  // the depthwise kernel expects init, multiplier and shift interleaved
  // The inner loops of all other operators. A function, as they may depend on CPU features beyond the tier's.
  const Elementwise& (*elementwise)();
  // Runs about `repeats` million multiply-adds of the GEMM's instruction on registers; returns the exact number.
  int64_t (*peak)(int64_t repeats);
  // Called before and after calls of gemm on one thread, all with these taps and steps; null: nothing to prepare.
  void (*begin)(int tap_count, int steps) = nullptr;
  void (*end)() = nullptr;
  // How many of the `count` rows at block.rows make an efficient block, at most rows[vectors]; null: any number does.
  int (*take)(const GemmBlock& block, int64_t count) = nullptr;
  // A convolution by tiles, where the epilogue is the identity, or it is narrow, y has 8 bits, and the residual too,
  // with a residual_shift of at most kMostTileShift; null where the tier has no tiles.
  void (*convolve)(const TileRun&) = nullptr;
  void (*interleave_rows)(const InterleavedRows&) = nullptr;
  // The tier of convolutions with so few products that tiles are no gain; null: this one.
  const Tier* plain = nullptr;
};

// The kernels of each tier, defined by the file of its name: tiers::portable, tiers::avx2, … CMake writes tiers.inc
// from its table of tiers.
namespace tiers {
#define ONNXQ_TIER(name, ...) extern const Tier name;
#include "tiers.inc"
#undef ONNXQ_TIER
}  // namespace tiers

// The tier of new kernels: the one that ONNXQ_ISA names, otherwise the best that is compiled in and that the CPU runs.
// Throws when ONNXQ_ISA names a tier that is unavailable.
const Tier& chosen_tier();

}  // namespace onnxq
