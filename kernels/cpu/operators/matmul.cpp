#include "cpu/operators/matmul.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu/common/sizes.hpp"
#include "cpu/operators/tile_plan.hpp"

namespace onnxq {
namespace {

// At least one: the GEMM does not handle empty rows.
int64_t steps_of(int64_t k) { return std::max<int64_t>(ceil_div(k, kStep), 1); }

// The values of a panel as GemmBlock and TileRun take them.
size_t panel_bytes(const MatMul::Size& size) {
  return static_cast<size_t>(steps_of(size.k)) * kStep * static_cast<size_t>(size.width);
}

// Where the panels begin: behind what the accumulators start from.
size_t values_at(const MatMul::Size& size) { return static_cast<size_t>(size.panels() * size.width) * sizeof(int32_t); }

constexpr int kMostPieces = 64;  // of k, by tiles

// Whether rows can be read in place: unsigned, and whole steps long.
bool readable(bool flip, int64_t k) { return !flip && k > 0 && k % kStep == 0; }

int32_t wrapped(int64_t a) { return static_cast<int32_t>(static_cast<uint64_t>(a)); }

}  // namespace

int64_t MatMul::Size::panels() const { return ceil_div(n, width); }
size_t MatMul::Size::packed_bytes() const {
  return values_at(*this) + static_cast<size_t>(panels()) * panel_bytes(*this);
}

size_t MatMul::Size::scratch_bytes(int64_t rows) const {
  rows = std::min(rows, kRows);
  return aligned(static_cast<size_t>(rows) * sizeof(void*)) + aligned(static_cast<size_t>(rows) * sizeof(int32_t)) +
         aligned(static_cast<size_t>(rows * steps_of(k) * kStep) + kSlack);
}

MatMul::MatMul(const Tier& tier, const MatMulSpec& spec)
    : tier_(tier),
      kernels_(tier.elementwise()),
      flip_a_(spec.a_type == IntType::S8),
      flip_b_(spec.b_type == IntType::U8),
      a_zero_point_(spec.a_zero_point + (flip_a_ ? 128 : 0)),
      b_zero_point_(spec.b_zero_point - (flip_b_ ? 128 : 0)),
      multiplier_(kPanel, spec.multiplier),
      shift_(kPanel, spec.shift) {
  epilogue_.range = spec.range;
  epilogue_.uniform_shift = spec.shift;
  const double largest = 2147483648.0 * spec.multiplier / std::ldexp(1.0, spec.shift);
  epilogue_.narrow = largest + std::abs(double{1} * spec.range.zero_point) + 2 < 2147483647.0 &&
                     spec.shift <= 60 - 8 * size_of(spec.range.type);
  epilogue_.spare_bit = epilogue_.narrow && spec.shift == 32 && spec.multiplier <= INT32_MAX / 2;
  epilogue_.one_panel = true;
  tiled_ = tier.convolve && epilogue_.narrow && is_byte(spec.range.type);
  epilogue_.identity = spec.range.type == IntType::S32 && spec.range.zero_point == 0 && spec.range.qmin == INT32_MIN &&
                       spec.range.qmax == INT32_MAX && spec.shift <= 30 && spec.multiplier == int32_t{1} << spec.shift;
}

void MatMul::pack(const Size& size, const void* b, uint8_t* packed, int64_t begin, int64_t end) const {
  const auto* const from = static_cast<const uint8_t*>(b);
  const uint8_t flip = flip_b_ ? 0x80 : 0;
  for (int64_t panel = begin; panel < end; panel++) {
    const int64_t n0 = panel * size.width, columns = std::min(size.width, size.n - n0);
    const int64_t width = ceil_div(columns, kVector) * kVector;
    auto* const sums = reinterpret_cast<int32_t*>(packed) + n0;
    std::memset(sums, 0, static_cast<size_t>(size.width) * sizeof(int32_t));
    uint8_t* line = packed + values_at(size) + static_cast<size_t>(panel) * panel_bytes(size);
    for (int64_t k = 0; k < steps_of(size.k) * kStep; k += kStep, line += width * kStep)
      kernels_.pack_step(from + k * size.n + n0, size.n, static_cast<int>(std::min<int64_t>(kStep, size.k - k)),
                         static_cast<int>(columns), flip, line, sums);
    // What the accumulators start with; the sum over a is added when its rows are known.
    const int64_t both = size.k * a_zero_point_ * b_zero_point_;
    for (int64_t n = 0; n < columns; n++) sums[n] = wrapped(both - int64_t{a_zero_point_} * sums[n]);
  }
}

void MatMul::multiply(const Size& size, const void* a, const uint8_t* packed, void* y, int64_t begin, int64_t end,
                      uint8_t* scratch) const {
  const int64_t most = std::min(end - begin, kRows), length = steps_of(size.k) * kStep;
  auto** const pointers = reinterpret_cast<const uint8_t**>(scratch);
  scratch += aligned(static_cast<size_t>(most) * sizeof(void*));
  auto* const sums = reinterpret_cast<int32_t*>(scratch);
  uint8_t* const copy = scratch + aligned(static_cast<size_t>(most) * sizeof(int32_t));
  const bool copies = !readable(flip_a_, size.k);
  const uint8_t flip = flip_a_ ? 0x80 : 0;
  for (int64_t row0 = begin; row0 < end; row0 += kRows) {
    const int64_t rows = std::min(kRows, end - row0);
    for (int64_t i = 0; i < rows; i++) {
      const uint8_t* const from = static_cast<const uint8_t*>(a) + (row0 + i) * size.k;
      pointers[i] = copies ? copy + i * length : from;
      if (copies) {
        uint8_t* const to = copy + i * length;
        for (int64_t k = 0; k < size.k; k++) to[k] = from[k] ^ flip;
        for (int64_t k = size.k; k < length; k++) to[k] = 0;
      }
      if (b_zero_point_) {
        int32_t sum = 0;
        kernels_.sum_rows(pointers[i], IntType::U8, 1, size.k, 0, &sum, 1);
        sums[i] = wrapped(int64_t{sum} * b_zero_point_);
      }
    }
    auto* const to = static_cast<uint8_t*>(y) + row0 * size.n * size_of(epilogue_.range.type);
    if (tiled_ && multiply_tiles(size, pointers[0], copies ? length : size.k, sums, packed, rows, to)) continue;
    if (tier_.begin) tier_.begin(1, static_cast<int>(steps_of(size.k)));
    for (int64_t panel = 0; panel < size.panels(); panel++)
      multiply_panel(size, panel, pointers, sums, packed, rows, to);
    if (tier_.end) tier_.end();
  }
}

// False where tiles would waste much, or k is too long.
bool MatMul::multiply_tiles(const Size& size, const uint8_t* a, int64_t spacing, const int32_t* sums,
                            const uint8_t* packed, int64_t count, uint8_t* y) const {
  const auto steps = static_cast<int>(steps_of(size.k)), piece_steps = tile_piece_steps(1, steps);
  if (count < kTileHeight || size.n < kVector || !piece_steps || steps / piece_steps > kMostPieces) return false;
  Tile tiles[kRows / kTileHeight];
  ptrdiff_t pieces[kMostPieces];
  TileRun run{};
  run.x = a;
  run.spacing = spacing;
  run.tiles = tiles;
  run.tile_count = ceil_div(count, kTileHeight);
  for (int64_t i = 0; i < run.tile_count; i++) {
    const int64_t row = i * kTileHeight, from = std::min(row, count - kTileHeight);
    tiles[i] = {from * spacing, row, static_cast<uint16_t>(0xffff << (row - from))};
  }
  run.pieces = pieces;
  run.piece_count = steps / piece_steps;
  for (int i = 0; i < run.piece_count; i++) pieces[i] = ptrdiff_t{kStep} * piece_steps * i;
  run.steps = piece_steps;
  run.panel_bytes = static_cast<ptrdiff_t>(panel_bytes(size));
  run.row_terms = b_zero_point_ ? sums : nullptr;
  run.epilogue = epilogue_;
  run.epilogue.multiplier = run.epilogue.residual_multiplier = multiplier_.data();
  run.epilogue.shift = shift_.data();
  run.epilogue.y_stride = size.n;
  // Pairs of panels, then the last one by itself.
  const int64_t last_vectors = ceil_div(size.n - (size.panels() - 1) * size.width, kVector);
  const int64_t together = (size.panels() - (last_vectors == 1)) / 2 * 2;
  for (int64_t panel = 0; panel < size.panels(); panel += run.panel_count) {
    const int64_t channel = panel * size.width;
    run.panel_count = panel < together ? static_cast<int>(together) : 1;
    run.vectors = panel + 1 == size.panels() && last_vectors == 1 ? 1 : 2;
    run.panel = reinterpret_cast<const int8_t*>(packed + values_at(size)) + panel * run.panel_bytes;
    run.prefetch = run.panel;
    run.init = reinterpret_cast<const int32_t*>(packed) + channel;
    run.epilogue.n = static_cast<int>(std::min(run.panel_count * size.width, size.n - channel));
    run.epilogue.y = y + channel;
    tier_.convolve(run);
  }
  return true;
}

// As many blocks as fit, then one epilogue for all of them.
void MatMul::multiply_panel(const Size& size, int64_t panel, const uint8_t* const* rows, const int32_t* sums,
                            const uint8_t* packed, int64_t count, uint8_t* y) const {
  alignas(64) int32_t acc[kMaxRows * kPanel];
  const ptrdiff_t tap = 0;
  const int64_t first = panel * size.width, columns = std::min(size.width, size.n - first);
  GemmBlock block{};
  block.taps = &tap;
  block.tap_count = 1;
  block.steps = static_cast<int>(steps_of(size.k));
  block.vectors = static_cast<int>(ceil_div(columns, kVector));
  block.panel = block.prefetch =
      reinterpret_cast<const int8_t*>(packed + values_at(size) + static_cast<size_t>(panel) * panel_bytes(size));
  block.init = reinterpret_cast<const int32_t*>(packed) + first;
  EpilogueBlock e = epilogue_;
  e.acc = acc;
  e.n = static_cast<int>(columns);
  e.multiplier = e.residual_multiplier = multiplier_.data();
  e.shift = shift_.data();
  e.y_stride = size.n;
  const int most = tier_.rows[block.vectors];
  const int64_t blocks = ceil_div(count, most);
  int64_t done = 0;
  for (int64_t b = 0, m0 = 0, m1 = 0; m0 < count; b++, m0 = m1) {
    block.rows = rows + m0;
    m1 = tier_.take ? m0 + tier_.take(block, count - m0) : count * (b + 1) / blocks;
    block.m = static_cast<int>(m1 - m0);
    block.acc = acc + (m0 - done) * kPanel;
    tier_.gemm(block);
    if (m1 < count && m1 - done + most <= kMaxRows) continue;
    e.m = static_cast<int>(m1 - done);
    if (b_zero_point_) kernels_.subtract(acc, e.m, e.n, sums + done);
    e.y = y + (done * size.n + first) * size_of(e.range.type);
    tier_.epilogue(e);
    done = m1;
  }
}

}  // namespace onnxq
