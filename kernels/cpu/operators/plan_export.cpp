// The plans of convolutions as plain C functions: for `onnxq bench --per-layer`, and for tests.
#include <algorithm>
#include <cstdint>
#include <exception>
#include <vector>

#include "cpu/operators/conv.hpp"
#include "cpu/operators/tile_plan.hpp"
#include "export.hpp"

namespace {

using namespace onnxq;

// A convolution of this shape whose results are rescaled to bytes with one shift, as most are.
ConvSpec typical(const ConvShape& shape, const std::vector<int8_t>& weights, bool nibbles, bool signed_x,
                 bool residual) {
  ConvSpec spec{};
  const auto channels = static_cast<size_t>(shape.out_channels);
  spec.shape = shape;
  spec.weights = weights.data();
  spec.nibbles = nibbles;
  spec.w_zero_point.assign(channels, 0);
  spec.bias.assign(channels, 0);
  spec.multiplier.assign(channels, 1);
  spec.shift.assign(channels, 32);
  if (residual) spec.residual_multiplier.assign(channels, 1);
  spec.x_type = signed_x ? IntType::S8 : IntType::U8;
  spec.residual_type = IntType::U8;
  spec.range = {IntType::U8, 0, 0, 255};
  return spec;
}

}  // namespace

// The plan of a run of the chosen tier. layer: images, h, w, in_channels, out_channels, groups, kh, kw, stride h and w,
// dilation h and w, padding top, left, bottom and right, whether weights are in nibbles, whether x is signed, whether
// there is a residual. plan: 0 where rows are computed, 1 tiles, 2 a depthwise convolution; pieces of k, steps of 4
// values of each, kernel rows beside each other; parts by rows, parts by channels; bytes of packed weights, bytes of
// the copy of x or of what a part copies of it. Returns whether there is a plan: false for a layer that no kernel can
// be made for.
ONNXQ_EXPORT int onnxq_conv_plan(const int64_t* layer, int64_t* plan) {
  try {
    const ConvShape shape{layer[3],  layer[4],  layer[5],  layer[6],  layer[7],  layer[8], layer[9],
                          layer[10], layer[11], layer[12], layer[13], layer[14], layer[15]};
    const int64_t values = shape.out_channels * shape.kh * shape.kw * (shape.in_channels / shape.groups);
    const std::vector<int8_t> weights(static_cast<size_t>(values));
    const Convolution made(chosen_tier(), typical(shape, weights, layer[16] != 0, layer[17] != 0, layer[18] != 0));
    const Convolution::Plan p = made.plan(layer[0], layer[1], layer[2]);
    const TileForm& form = made.form();
    const int64_t path = p.tiles ? 1 : made.depthwise() ? 2 : 0;
    const int64_t all[] = {path,
                           p.tiles ? form.pieces() : 0,
                           p.tiles ? form.piece_steps : 0,
                           form.row_group,
                           p.row_parts,
                           p.panel_parts,
                           static_cast<int64_t>(made.packed_bytes()),
                           static_cast<int64_t>(std::max(p.copy_bytes, p.own_copy))};
    for (const int64_t value : all) *plan++ = value;
    return 1;
  } catch (const std::exception&) {
    return 0;
  }
}

// tiles_of(n, oh, ow, {pixel, line, image}): returns how many there are, of which the first `most` are written to
// `tiles`, as from, output, kept.
ONNXQ_EXPORT int64_t onnxq_tiles(int64_t n, int64_t oh, int64_t ow, int64_t pixel, int64_t line, int64_t image,
                                 int64_t most, int64_t* tiles) {
  const std::vector<Tile> found = tiles_of(n, oh, ow, {pixel, line, image});
  for (size_t i = 0; i < found.size() && static_cast<int64_t>(i) < most; i++) {
    *tiles++ = found[i].from;
    *tiles++ = found[i].output;
    *tiles++ = found[i].kept;
  }
  return static_cast<int64_t>(found.size());
}
