// Products of two activations, stacks of matrices. b is packed at run time into panels like those of constant weights
// and read as signed: b − 128 where it is unsigned; a as unsigned: a + 128 where it is signed. The zero points are
// shifted accordingly:
//
//   Σ (a − za)(b − zb) = Σ a·b − za·Σ b − zb·Σ a + K·za·zb
#pragma once

#include <cstdint>

#include "cpu/common/line_vector.hpp"
#include "cpu/common/rescale.hpp"
#include "cpu/elementwise/elementwise.hpp"
#include "cpu/tiers/tier.hpp"

namespace onnxq {

struct MatMulSpec {
  IntType a_type, b_type;
  int32_t a_zero_point, b_zero_point;
  int32_t multiplier, shift;
  OutputRange range;
};

class MatMul {
 public:
  MatMul(const Tier& tier, const MatMulSpec& spec);

  struct Size {
    int64_t m, k, n;
    int64_t width;  // columns of a panel, see panel_width()
    int64_t panels() const;
    // Bytes of a packed b, and of multiply()'s scratch memory; both multiples of 64.
    size_t packed_bytes() const;
    size_t scratch_bytes(int64_t rows) const;
  };
  static constexpr int64_t kRows = 256;  // most rows that multiply() takes at a time

  int64_t panel_width() const { return tiled_ ? kPanel / 2 : kPanel; }

  // Packs panels `begin` to `end` of one b [K, N]. packed: what the accumulators of all columns start from, then the
  // panels, 64-byte aligned.
  void pack(const Size& size, const void* b, uint8_t* packed, int64_t begin, int64_t end) const;
  // Rows `begin` to `end` of y [M, N] = a [M, K] · b. scratch: scratch_bytes(end − begin), 64-byte aligned.
  void multiply(const Size& size, const void* a, const uint8_t* packed, void* y, int64_t begin, int64_t end,
                uint8_t* scratch) const;

 private:
  // `count` rows of a, `spacing` bytes apart where by tiles. sums: of each row, times b's zero point.
  bool multiply_tiles(const Size& size, const uint8_t* a, int64_t spacing, const int32_t* sums, const uint8_t* packed,
                      int64_t count, uint8_t* y) const;
  void multiply_panel(const Size& size, int64_t panel, const uint8_t* const* rows, const int32_t* sums,
                      const uint8_t* packed, int64_t count, uint8_t* y) const;

  const Tier& tier_;
  const Elementwise& kernels_;
  bool flip_a_, flip_b_;
  int32_t a_zero_point_, b_zero_point_;  // of a and b as they are read
  bool tiled_;                           // the tier's tiles compute it, where there are rows enough
  EpilogueBlock epilogue_{};
  LineVector<int32_t> multiplier_, shift_;
};

}  // namespace onnxq
