// Convolution and matrix product with constant weights, on channels-last tensors.
//
// Both share one implementation: a matrix product is a 1×1 convolution over an image of one row. There is no im2col:
// every output pixel is a row of the product, given by a pointer to its first input pixel, and the kernel's taps are
// offsets from there. Where the kernel extends beyond the border, or the input must be changed (signed to unsigned,
// channels not a multiple of 4), the image is copied into padded scratch memory first.
//
// acc = Σ (x − x_zero_point)(w − w_zero_point[m]) + bias[m]. Signed x is read as x + 128, with its zero point shifted
// accordingly.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "cpu/common/large_pages.hpp"
#include "cpu/common/line_vector.hpp"
#include "cpu/common/rescale.hpp"
#include "cpu/operators/conv_shape.hpp"
#include "cpu/operators/tile_plan.hpp"
#include "cpu/tiers/tier.hpp"

namespace onnxq {

// What a node specifies; vectors have out_channels values, residual_multiplier none where there is no residual.
struct ConvSpec {
  ConvShape shape;
  const int8_t* weights;  // [out_channels][kh][kw][in_channels / groups]
  bool nibbles;           // all weights are in -8..7: keep them in nibbles
  std::vector<int32_t> w_zero_point, bias, multiplier, shift, residual_multiplier;
  IntType x_type;
  int32_t x_zero_point;
  IntType residual_type;
  int32_t residual_zero_point;
  OutputRange range;
};

class Convolution {
 public:
  // Packs the weights; `spec.weights` is not needed afterwards.
  Convolution(const Tier& tier, const ConvSpec& spec);

  // Size of y for an image of this size; 0 where the kernel does not fit.
  int64_t out_h(int64_t h) const;
  int64_t out_w(int64_t w) const;

  // The most images that a run should take, so that the copies it makes of them stay in the cache.
  int64_t images_at_a_time(int64_t h, int64_t w) const;

  // How a run on n images of this size is cut: parts that may run at the same time, each with its scratch memory. Where
  // copy_bytes is not 0 the images are copied first, in parts too, and the run reads the copy. Where own_copy is not 0
  // each part copies the rows it needs, a chunk at a time.
  struct Plan {
    int64_t n, h, w, oh, ow;
    int64_t row_parts, panel_parts;
    int64_t chunk;         // output pixels, or tiles, that a part computes at a time
    size_t scratch_bytes;  // of each part
    int64_t copy_rows, copy_parts;
    size_t copy_bytes, copy_scratch;  // copy_scratch: of each part of the copy, behind the copy itself
    size_t own_copy;                  // bytes of the rows of a chunk at most
    Spacing spacing;
    std::shared_ptr<const std::vector<Tile>> tiles;  // null: computed without tiles
    int64_t panels_at_a_time;                        // by tiles
    size_t parts() const { return static_cast<size_t>(row_parts * panel_parts); }
  };
  Plan plan(int64_t n, int64_t h, int64_t w) const;
  // Copies part i < plan.copy_parts of x, padded and unsigned, into `to`, which has copy_bytes.
  void copy(const Plan& plan, size_t i, const void* x, uint8_t* to) const;
  // Computes part i < plan.parts() of x or its copy. scratch: this part's own, 64-byte aligned.
  void run(const Plan& plan, size_t i, const void* x, const void* residual, void* y, uint8_t* scratch) const;

  size_t packed_bytes() const { return packed_.size(); }
  bool depthwise() const { return depthwise_; }
  const TileForm& form() const { return form_; }

 private:
  struct Panel {
    int64_t group, channel;  // first output channel
    int vectors, channels;
    size_t offset;  // in packed_, bytes
  };
  struct Rows;

  void pack(const ConvSpec& spec);
  void pack_depthwise(const ConvSpec& spec);
  bool proven_narrow(const std::vector<double>& acc_bound) const;
  void prefer_shift_32();
  bool has_spare_bit() const;
  int64_t panel_count() const;
  Spacing spacing(int64_t h, int64_t w) const;
  void set_taps(const Plan& plan, ptrdiff_t* taps) const;
  void plan_tiles(Plan& plan) const;
  struct Range {
    int64_t begin, end;
  };
  Range rows_read(const Plan& plan, int64_t tile0, int64_t tile1) const;
  int64_t copy_row_bytes(int64_t w) const;
  void copy_rows(const Plan& plan, int64_t row0, int64_t row1, const uint8_t* x, uint8_t* to, uint8_t* scratch) const;
  void copy_lines(const Plan& plan, int64_t row0, int64_t row1, const uint8_t* x, uint8_t* to) const;
  void copy_phases(const Plan& plan, int64_t row0, int64_t row1, const uint8_t* x, uint8_t* to) const;
  void copy_row_groups(const Plan& plan, int64_t row0, int64_t row1, const uint8_t* x, uint8_t* to,
                       uint8_t* padding) const;
  int64_t units(const Plan& plan) const;
  size_t panel_bytes(const Panel& panel) const;
  size_t unpacked_bytes() const;
  void run_rows(const Plan& plan, int64_t pixel0, int64_t pixel1, int64_t panel0, int64_t panel1, const uint8_t* x,
                const void* residual, void* y, uint8_t* scratch) const;
  void run_tiles(const Plan& plan, int64_t tile0, int64_t tile1, int64_t panel0, int64_t panel1, const uint8_t* x,
                 const void* residual, void* y, uint8_t* scratch) const;
  void run_dense(const Plan& plan, const Rows& rows, int64_t panel0, int64_t panel1, const void* residual, void* y,
                 int8_t* unpacked) const;
  void run_depthwise(const Plan& plan, int64_t row0, int64_t row1, int64_t panel0, int64_t panel1, const uint8_t* x,
                     void* y, uint8_t* scratch) const;
  void correct_zero_points(const GemmBlock& block, const Panel& panel) const;

  const Tier& tier_;
  ConvShape shape_;
  bool depthwise_, nibbles_, affine_, flip_, copies_, merged_;
  TileForm form_;  // used: computed by tiles, where an image is large enough
  int tap_count_, steps_;
  int32_t zero_point_;  // of x as it is read, unsigned
  EpilogueBlock epilogue_;
  std::vector<Panel> panels_;
  LargePages packed_;
  bool pairs_fit_ = false;  // GemmBlock::pairs_fit
  std::vector<int8_t> ones_;
  // Per output channel, plus kPanel more, so that a whole panel can always be read.
  LineVector<int32_t> init_, multiplier_, shift_, residual_multiplier_;
  std::vector<int32_t> w_zero_point_;

  // The tiles of the last size: most sessions see one.
  struct SizedTiles {
    int64_t n, h, w;
    std::shared_ptr<const std::vector<Tile>> tiles;
  };
  mutable std::mutex mutex_;
  mutable SizedTiles last_{};
};

}  // namespace onnxq
