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
    : kernels_(kernels), spec_(spec), table_{}, least_(saturated(0, spec.range)) {
  const auto multiplier = static_cast<uint64_t>(2 * int64_t{spec.multiplier});
  for (size_t d = 0; d < 256; d++) {
    const int32_t e = spec.table[d];
    table_.values[d] = e;
    for (int p = 0; p < 3; p++) table_.planes[p][d] = static_cast<uint8_t>(e >> 8 * p);
    dividends_[255 - d] = static_cast<double>(static_cast<uint64_t>(e) * multiplier >> spec.shift);
  }
  for (size_t d = 256; d-- > 0;) reach_[d] = std::max(dividends_[255 - d], d < 255 ? reach_[d + 1] : 0.0);
}

// How many entries of the table can give more than 0: those up to the last whose dividend is at least S. Without
// branches that depend on it, as it changes from row to row.
int Softmax::entries(double total) const {
  int count = 0;
  for (int step = 128; step > 0; step /= 2) count += reach_[static_cast<size_t>(count + step - 1)] >= total ? step : 0;
  return count + (reach_[static_cast<size_t>(count)] >= total);
}

void Softmax::row(const uint8_t* x, int64_t n, void* y) const {
  const uint8_t flip = spec_.is_signed ? 0x80 : 0;
  uint8_t largest = 0;
  for (int64_t i = 0; i < n; i++) {
    const auto value = static_cast<uint8_t>(x[i] ^ flip);
    largest = value > largest ? value : largest;
  }
  largest ^= flip;
  const auto total = static_cast<double>(kernels_.table_sum(table_, largest, x, n));

  // (2·e·b + S·2^c) div (S·2^(c+1)) = (floor(2·e·b / 2^c) + S) div 2S. Differences that do not
  // occur in this row may give any result.
  int32_t results[256];  // that of max − x = d at 255 − d
  const int idle = 256 - entries(total);
  kernels_.divide(dividends_.data() + idle, 256 - idle, total, spec_.range, results + idle);
  if (is_byte(spec_.range.type)) {
    uint8_t bytes[512];  // twice, so that 256 consecutive ones are the table by the value of x
    std::memset(bytes, least_, static_cast<size_t>(idle));
    for (int i = idle; i < 256; i++) bytes[i] = static_cast<uint8_t>(results[i]);
    std::memcpy(bytes + 256, bytes, 256);
    return kernels_.lookup(bytes + 255 - largest, x, static_cast<uint8_t*>(y), n);
  }
  std::fill(results, results + idle, least_);
  if (spec_.range.type == IntType::S32) {
    for (int64_t i = 0; i < n; i++) static_cast<int32_t*>(y)[i] = results[static_cast<uint8_t>(255 - largest + x[i])];
    return;
  }
  for (int64_t i = 0; i < n; i++)
    static_cast<int16_t*>(y)[i] = static_cast<int16_t>(results[static_cast<uint8_t>(255 - largest + x[i])]);
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
