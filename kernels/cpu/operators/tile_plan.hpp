// Planning of dense convolutions by tiles: pure functions of shapes and sizes.
//
// A tile is 16 rows of the product, which must be equally spaced in memory. With a stride of 1 the rows of all outputs
// are, if the padded image is taken as one line of pixels: where an image row ends, the rows of the pixels between are
// computed too and dropped. For larger strides the copy of the image gets a plane for each phase of the strides, in
// which the pixels that a tap reads for neighbouring outputs are neighbours. Where an image has few channels, the copy
// puts kernel rows beside each other, pixel by pixel, so that one piece of k holds several of them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "cpu/common/sizes.hpp"
#include "cpu/operators/conv_shape.hpp"
#include "cpu/tiers/tier.hpp"

namespace onnxq {

// How weights are cut into pieces of k. Settled when they are packed.
struct TileForm {
  bool used = false;    // otherwise tiles would waste too much
  int row_group = 0;    // kernel rows beside each other in the copy; 0: the copy has rows as they are
  bool phases = false;  // the copy has planes
  bool merged = false;  // a tap is a kernel row, otherwise a pixel
  int tap_count = 0;    // a group of rows is one tap
  int steps = 0;        // of kStep values, of a tap
  int piece_steps = 0;  // of each piece; divides steps
  int pieces() const { return piece_steps ? tap_count * (steps / piece_steps) : 0; }
};
TileForm tile_form(const ConvShape& shape);

// Steps of the pieces that taps of `steps` are cut into, all alike and of at most 16; 0 where that would waste much.
int tile_piece_steps(int64_t taps, int64_t steps);

// Bytes between what neighbouring outputs read: in a row, in a column, of images.
struct Spacing {
  int64_t pixel, line, image;
};

// Tiles that hold every output of n images once, in order; empty where fewer than 16 rows can be read at all.
std::vector<Tile> tiles_of(int64_t n, int64_t oh, int64_t ow, const Spacing& spacing);

// Parts begin at whole pairs, of tiles and of panels.
constexpr int64_t kTileGrain = 2;

// Where one of `parts` parts of `count` units begins, at multiples of grain.
inline int64_t part_begin(int64_t count, int64_t part, int64_t parts, int64_t grain) {
  return std::min(count, ceil_div(count, grain) * part / parts * grain);
}

// How the product is cut into parts that may run at the same time, and how each of them goes through its weights.
struct TileCut {
  int64_t row_parts, panel_parts;  // each of whole pairs of tiles, or of panels
  int64_t chunk;                   // tiles that a part takes at a time: their input stays in the second-level cache
  int64_t panels_at_a_time;        // panels whose weights stay in a cache while a chunk is multiplied by them
};
struct TileWork {
  int64_t tiles, panels, pieces;
  int64_t row_bytes;    // of input, of 16 rows: what a tile adds to a chunk
  int64_t panel_bytes;  // of weights, as stored
  bool by_channels;     // weights are larger than activations
  bool residual, unpacks;
};
TileCut tile_cut(const TileWork& work);

}  // namespace onnxq
