// The tiers of kernels: one file an instruction set, compiled with that set's flags only. The choice is made at run time
// from what is compiled in and what the CPU has; the environment variable ONNXQ_ISA overrides it.
//
// Files compiled for an instruction set must not instantiate inline functions or templates that others instantiate too
// (the standard library's among them): the linker keeps one copy, which may then need an instruction the CPU lacks.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/common/rescale.hpp"
#include "cpu/tiers/features.hpp"

namespace onnxq {

struct Elementwise;

constexpr int kPanel = 64;       // channels of a panel at most: the distance of the rows of accumulators
constexpr int kVector = 16;      // channels come in groups of this many
constexpr int kMaxRows = 32;     // rows of a block at most, over all tiers
constexpr int kStep = 4;         // k values that lie side by side for a channel

// A block of accumulators: acc[i][n] = init[n] + Σ over taps and k of rows[i][taps[t] + k] · panel[t][k / 4][n][k % 4].
struct GemmBlock {
  const uint8_t* const* rows;   // `m` of them, of one image in memory: ascending, and what lies between them may be read
  const ptrdiff_t* taps;        // byte offsets from a row to the start of each tap
  int m;
  int tap_count;
  int steps;                    // of kStep values, in each tap
  int vectors;                  // of kVector channels, 1 to 4
  const int8_t* panel;          // [tap][step][vectors * 16][4]
  const int32_t* init;          // [vectors * 16]
  int32_t* acc;                 // [m][kPanel], 64-byte aligned
  const int8_t* prefetch;       // what will be needed next: a step may fetch the line here, the next one
  ptrdiff_t prefetch_stride;    // the one at this distance in bytes, and so on
};

// Rescales a block of accumulators and writes it: y = sat(((acc·b + (r − zp_r)·b_r + 2^(c−1)) >> c) + zp).
struct EpilogueBlock {
  const int32_t* acc;           // [m][kPanel]
  int m;
  int n;                        // channels, 1 to kPanel
  const int32_t* multiplier;    // [kPanel], zero behind n
  const int32_t* shift;         // [kPanel], 1 to 62 behind n too
  const int32_t* residual_multiplier;  // [kPanel]
  const void* residual;         // null where there is none
  ptrdiff_t residual_stride;    // in elements
  IntType residual_type;
  int32_t residual_zero_point;
  int residual_shift;           // k; not 0 only for 8-bit residuals
  OutputRange range;
  void* y;
  ptrdiff_t y_stride;           // in elements
  bool interleaved;             // channels of acc, multiplier and shift in the order of `interleave` below
  bool identity;                // acc itself, in an int32 y that does not saturate
  int uniform_shift;            // of all channels, or 0
  bool narrow;                  // the scaled sum is proven to fit int32 (with the zero point added)
  bool spare_bit;               // the shift is 32, and twice the multipliers still fits int32: 2·multiplier, and
                                // 2^(residual_shift + 1)·residual_multiplier of an 8-bit residual
};

// Channels [first, last) of a row of output pixels of a depthwise convolution. Pixel x takes the columns
// x·stride + j·dilation, j < kw.
struct DepthwiseBlock {
  const uint8_t* const* columns;  // [padded width][kh]: where the channels of each input pixel start
  int kh, kw, stride, dilation;
  int width;                      // output pixels
  int channels;
  int first, last;                // multiples of kPanel, or last = channels
  const int8_t* weights;          // as the tier packed them, of all channels
  const int32_t* init;            // [channels rounded up to kPanel], in the tier's order
  EpilogueBlock epilogue;         // of the first channels; multiplier and shift are as long as init, in the tier's order
};

// Place p of an interleaved panel holds channel interleave(p): the order that unpacking bytes within 128-bit lanes gives.
static inline int interleave(int p) { return (p % kVector) / 4 * kVector + p / kVector * 4 + p % 4; }

struct Tier {
  int rows[5];                  // rows of a block for 1 to 4 vectors; rows[0] is not used
  void (*gemm)(const GemmBlock&);
  void (*epilogue)(const EpilogueBlock&);
  // Nibbles to bytes. A line of 64 bytes of src holds two of dst: the first in its low nibbles, the second in its high
  // ones. lines: of src. dst: 128 bytes for each of them.
  void (*unpack4)(const uint8_t* src, int8_t* dst, size_t lines);
  // GEMM of one tap with the panel in nibbles, as unpack4 takes it, for up to rows[vectors] rows; null where unpacking
  // first is as good.
  void (*gemm4)(const GemmBlock&);
  // Packs depthwise weights [channels][kh][kw] and says how many bytes that takes; packed may be null.
  size_t (*pack_depthwise)(const int8_t* weights, int kh, int kw, int channels, int8_t* packed);
  void (*depthwise)(const DepthwiseBlock&);
  bool interleaved;             // the depthwise kernel takes init, multiplier and shift interleaved
  // The inner loops of all other operators. A function, since they may depend on more of the CPU than the tier does.
  const Elementwise& (*elementwise)();
  // About `repeats` million multiply-adds on registers with the instruction of the GEMM; gives how many it did.
  int64_t (*peak)(int64_t repeats);
  // Around calls of gemm on one thread, all with these taps and steps; null where there is nothing to prepare.
  void (*begin)(int tap_count, int steps) = nullptr;
  void (*end)() = nullptr;
  // How many of the `count` rows from block.rows on make a good block, at most rows[vectors]; null: all numbers are as good.
  int (*take)(const GemmBlock& block, int64_t count) = nullptr;
};

// The kernels of each tier, defined by the file of its name: tiers::portable, tiers::avx2, … CMake writes tiers.inc from
// its table of tiers.
namespace tiers {
#define ONNXQ_TIER(name, ...) extern const Tier name;
#include "tiers.inc"
#undef ONNXQ_TIER
}  // namespace tiers

// A line of the table of tiers.
struct TierEntry {
  const char* name;
  const char* needs;  // the CPU features, separated by spaces; "" where every CPU will do
  bool (*runs_on)(const CpuFeatures&);
  const char* inner_loop;  // what it is made of, in a few words
  const Tier* tier;        // null where the compiler lacks the instruction set
};

// The tier of new kernels: the one that ONNXQ_ISA names, otherwise the best that is compiled in and that the CPU runs.
// Throws when ONNXQ_ISA names a tier that is unavailable.
const Tier& chosen_tier();

}  // namespace onnxq
