// The inner loops of every operator other than convolution and matrix product: they run over values that are contiguous
// in memory. Each instruction set has its own (tables.hpp); the operators in cpu/operators are common to all.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/common/rescale.hpp"

namespace onnxq {

// y[i] = sat(((a[i]·a_multiplier + b[i]·b_multiplier + offset) >> shift) + zero_point), in 64 bits that wrap. offset
// holds the rounding constant 2^(c−1) and the zero points of a and b: −zp_a·a_multiplier − zp_b·b_multiplier.
struct SumRow {
  const void* a;
  const void* b;  // null: one term
  IntType a_type, b_type;
  const int32_t* a_multiplier;  // [n], or [1] where `uniform`, as the next three. Negative where b is subtracted
  const int32_t* b_multiplier;
  const int32_t* shift;
  const int64_t* offset;
  bool uniform;
  bool narrow;  // the shifted sum is proven to fit int32 with the zero point added
  OutputRange range;
  void* y;
  int64_t n;
};

// The same for two 8-bit tensors with uniform multipliers, in 32 bits: multipliers and offset are split into halves,
// m = high·2^16 + low, and floor((H·2^16 + L) / 2^c) = floor((H + floor(L / 2^16)) / 2^(c − 16)).
struct ByteSum {
  bool a_signed, b_signed;
  int16_t a_high, a_low, b_high, b_low;
  int32_t high, low;  // of the offset
  int shift;          // c − 16, 0 to 31
  OutputRange range;  // of 8 bits
};

// y[i] = sat((((a[i] − zp_a)·(b[i] − zp_b)·multiplier + 2^(c−1)) >> c) + zero_point), a and b of 8 bits.
struct ProductRow {
  const void* a;
  const void* b;
  IntType a_type, b_type;
  int32_t a_zero_point, b_zero_point, multiplier, shift;
  bool narrow;  // as in SumRow
  OutputRange range;
  void* y;
  int64_t n;
};

// 256 values from 0 to 2^24 - 1, once more as planes of bytes: planes[p][i] is byte p of values[i].
struct ValueTable {
  int32_t values[256];
  uint8_t planes[3][256];
};

struct Moments {
  int64_t sum, squares;
};

struct Elementwise {
  void (*sum)(const SumRow&);
  void (*byte_sum)(const ByteSum&, const void* a, const void* b, void* y, int64_t n);
  void (*product)(const ProductRow&);
  // y[i] = table[x[i]], 256 entries of a byte.
  void (*lookup)(const uint8_t* table, const uint8_t* x, uint8_t* y, int64_t n);
  // Σ table.values[from − x[i]], indices modulo 256.
  int64_t (*table_sum)(const ValueTable& table, uint8_t from, const uint8_t* x, int64_t n);
  // y[i·channels + c] = x[c·stride + i], c < channels (2 or more): channels are contiguous in x, positions in y.
  void (*channels_last)(const uint8_t* x, ptrdiff_t stride, int64_t channels, uint8_t* y, int64_t n);
  // y[i] = largest of x[i + k·stride], k < count (1 or more). stride is in elements; y is of the type of x.
  void (*max_rows)(const void* x, IntType type, ptrdiff_t stride, int64_t count, void* y, int64_t n);
  // acc[i] = init + Σ x[i + k·stride], k < count, wrapping. stride is in elements.
  void (*sum_rows)(const void* x, IntType type, ptrdiff_t stride, int64_t count, int32_t init, int32_t* acc, int64_t n);
  // x − zero_point, limited to 16 bits, into `centred`; their sum and the sum of their squares. n is at most 2^15.
  Moments (*moments)(const void* x, IntType type, int32_t zero_point, int32_t* centred, int64_t n);
  // values = values·by − less; the results fit int32.
  void (*scale)(int32_t* values, int32_t by, int32_t less, int64_t n);
  // One step of a panel (tier.hpp): panel[n][r] = b[r·stride + n] ^ flip as signed bytes, 0 beyond the `columns` (1 to
  // 64) up to a multiple of 16 and beyond the `rows` (0 to 4). Adds the values to sums[n].
  void (*pack_step)(const uint8_t* b, ptrdiff_t stride, int rows, int columns, uint8_t flip, uint8_t* panel,
                    int32_t* sums);
  // acc[i][n] −= by[i] for n < columns, wrapping; rows of kPanel values.
  void (*subtract)(int32_t* acc, int rows, int columns, const int32_t* by);
  // y[i] = sat(floor((values[i] + sum) / (2·sum)) + zero_point). values are integers from 0 to 2^51, sum one from 1 to
  // 2^45; the quotient is exact where it is below 2^31 and unspecified otherwise.
  void (*divide)(const double* values, int n, double sum, const OutputRange& range, int32_t* y);
};

}  // namespace onnxq
