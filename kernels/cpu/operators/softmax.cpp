#include "cpu/operators/softmax.hpp"

#include <algorithm>
#include <cstring>

namespace onnxq {
namespace {

int32_t saturated(int64_t value, const OutputRange& range) {
  value += range.zero_point;
  value = value < range.qmin ? range.qmin : value;
  return static_cast<int32_t>(value > range.qmax ? range.qmax : value);
}

}  // namespace

Softmax::Softmax(const Elementwise& kernels, const SoftmaxSpec& spec)
    : kernels_(kernels), spec_(spec), count_(256), least_(saturated(0, spec.range)) {
  // S is at least the first entry. Below 1/2 the result is 0.
  const int64_t half = int64_t{spec.table[0]} << spec.shift;
  while (count_ > 1 && 2 * int64_t{spec.table[static_cast<size_t>(count_ - 1)]} * spec.multiplier < half) count_--;
  const auto multiplier = static_cast<uint64_t>(2 * int64_t{spec.multiplier});
  for (size_t d = 0; d < 256; d++)
    dividends_[255 - d] = static_cast<double>(static_cast<uint64_t>(spec.table[d]) * multiplier >> spec.shift);
}

void Softmax::row(const uint8_t* x, int64_t n, void* y) const {
  const uint8_t flip = spec_.is_signed ? 0x80 : 0;
  uint8_t largest = 0;
  for (int64_t i = 0; i < n; i++) {
    const auto value = static_cast<uint8_t>(x[i] ^ flip);
    largest = value > largest ? value : largest;
  }
  largest ^= flip;
  int64_t total = 0;
  for (int64_t i = 0; i < n; i++) total += spec_.table[static_cast<uint8_t>(largest - x[i])];

  // (2·e·b + S·2^c) div (S·2^(c+1)) = (floor(2·e·b / 2^c) + S) div 2S. Differences that do not
  // occur in this row may give any result.
  int32_t results[256];  // that of max − x = d at 255 − d
  const int idle = 256 - count_;
  std::fill(results, results + idle, least_);
  kernels_.divide(dividends_.data() + idle, count_, static_cast<double>(total), spec_.range, results + idle);
  if (spec_.range.type == IntType::S32) {
    for (int64_t i = 0; i < n; i++) static_cast<int32_t*>(y)[i] = results[static_cast<uint8_t>(255 - largest + x[i])];
    return;
  }
  if (spec_.range.type == IntType::S16) {
    for (int64_t i = 0; i < n; i++)
      static_cast<int16_t*>(y)[i] = static_cast<int16_t>(results[static_cast<uint8_t>(255 - largest + x[i])]);
    return;
  }
  uint8_t bytes[512];  // twice, so that 256 consecutive ones are the table by the value of x
  for (int i = 0; i < 256; i++) bytes[i] = static_cast<uint8_t>(results[i]);
  std::memcpy(bytes + 256, bytes, 256);
  kernels_.lookup(bytes + 255 - largest, x, static_cast<uint8_t*>(y), n);
}

void Softmax::run(const uint8_t* x, int64_t n, int64_t inner, void* y, int64_t begin, int64_t end,
                  uint8_t* scratch) const {
  const int64_t size = size_of(spec_.range.type);
  auto* const to = static_cast<uint8_t*>(y);
  for (int64_t r = begin; r < end; r++) {
    const int64_t start = r / inner * n * inner + r % inner;
    if (inner == 1) {
      row(x + start, n, to + start * size);
      continue;
    }
    uint8_t* const gathered = scratch + n * size;
    for (int64_t i = 0; i < n; i++) gathered[i] = x[start + i * inner];
    row(gathered, n, scratch);
    for (int64_t i = 0; i < n; i++)
      std::memcpy(to + (start + i * inner) * size, scratch + i * size, static_cast<size_t>(size));
  }
}

}  // namespace onnxq
