#include "cpu/operators/layer_norm.hpp"

#include <algorithm>
#include <cmath>

namespace onnxq {
namespace {

constexpr double kNormalized = 1 << 28;  // above any normalized value

// floor(sqrt(v)) for 2^60 <= v < 2^62: three steps of Newton's iteration from a tangent, and a correction.
int64_t integer_sqrt(int64_t v) {
  int64_t root = (int64_t{3} << 28) + v / (int64_t{3} << 30);
  for (int i = 0; i < 3; i++) root = (root + v / root) / 2;
  return root - (root * root > v);
}

// What makes z = (d·factor + 2^(shift−1)) >> shift of d = n·(x − mean): d / sqrt(v) with 20 fraction bits.
struct Reciprocal {
  int32_t factor, shift;
};

Reciprocal reciprocal_root(int64_t v) {
  int power = 0;
  for (int k = 16; k > 0; k /= 2)
    if (v < int64_t{1} << (62 - 2 * k)) {
      v <<= 2 * k;
      power += k;
    }
  const int64_t factor = (int64_t{1} << 61) / integer_sqrt(v);
  const int shift = 41 - power;
  if (factor == int64_t{1} << 31) return {1 << 30, shift - 1};  // the same, in 32 bits
  return {static_cast<int32_t>(factor), shift};
}

}  // namespace

LayerNorm::LayerNorm(const Elementwise& kernels, const LayerNormSpec& spec) : kernels_(kernels), spec_(spec) {
  const size_t n = std::max(spec.gamma.size(), spec.beta.size());
  gamma_ = spec.gamma;
  offset_ = spec.beta;
  gamma_.resize(n, spec.gamma[0]);
  offset_.resize(n, spec.beta[0]);
  shift_.assign(n, spec.shift);
  for (size_t i = 0; i < n; i++) {
    offset_[i] += int64_t{1} << (spec.shift - 1);
    const double largest = kNormalized * std::abs(double{1} * gamma_[i]) + std::abs(static_cast<double>(offset_[i]));
    narrow_ =
        narrow_ && std::ldexp(largest, -spec.shift) + std::abs(double{1} * spec.range.zero_point) + 2 < 2147483647.0;
  }
}

void LayerNorm::run(const void* x, int64_t n, void* y, int64_t begin, int64_t end, int32_t* scratch) const {
  SumRow normalized{};
  normalized.a = normalized.y = scratch;
  normalized.a_type = IntType::S32;
  normalized.uniform = normalized.narrow = true;
  normalized.range = {IntType::S32, 0, INT32_MIN, INT32_MAX};
  normalized.n = n;
  SumRow affine{};
  affine.a = scratch;
  affine.a_type = IntType::S32;
  affine.a_multiplier = gamma_.data();
  affine.shift = shift_.data();
  affine.offset = offset_.data();
  affine.uniform = channels() == 1;
  affine.narrow = narrow_;
  affine.range = spec_.range;
  affine.n = n;
  for (int64_t r = begin; r < end; r++) {
    const auto* const row = static_cast<const uint8_t*>(x) + r * n * size_of(spec_.x_type);
    Moments m = kernels_.moments(row, spec_.x_type, spec_.x_zero_point, scratch, n);
    if (!spec_.center) m.sum = 0;
    kernels_.scale(scratch, static_cast<int32_t>(n), static_cast<int32_t>(m.sum), n);
    const int64_t variance = n * m.squares - m.sum * m.sum + spec_.epsilon;
    const Reciprocal root = reciprocal_root(std::max<int64_t>(variance, 1));
    const int64_t half = int64_t{1} << (root.shift - 1);
    normalized.a_multiplier = &root.factor;
    normalized.shift = &root.shift;
    normalized.offset = &half;
    kernels_.sum(normalized);
    affine.y = static_cast<uint8_t*>(y) + r * n * size_of(spec_.range.type);
    kernels_.sum(affine);
  }
}

}  // namespace onnxq
