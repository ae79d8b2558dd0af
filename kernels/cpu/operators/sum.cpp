#include "cpu/operators/sum.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace onnxq {
namespace {

constexpr int64_t kRepeat = 512;  // positions that a repeated value is expanded to

std::vector<int32_t> spread(const std::vector<int32_t>& values, size_t count) {
  return values.size() == 1 ? std::vector<int32_t>(count, values[0]) : values;
}

const uint8_t* at(const void* data, IntType type, int64_t i) {
  return static_cast<const uint8_t*>(data) + i * size_of(type);
}

uint8_t* at(void* data, IntType type, int64_t i) { return static_cast<uint8_t*>(data) + i * size_of(type); }

// The largest |x − zero_point|.
double magnitude(IntType type, int32_t zero_point) {
  const double z = zero_point;
  switch (type) {
    case IntType::U8: return std::max(z, 255 - z);
    case IntType::S8: return std::max(z + 128, 127 - z);
    case IntType::S16: return std::max(z + 32768, 32767 - z);
    default: return 2147483648.0 + std::abs(z);
  }
}

bool is_narrow(double sum, int32_t shift, int32_t zero_point) {
  return sum / std::ldexp(1.0, shift) + std::abs(double{1} * zero_point) + 2 < 2147483647.0;
}

// Calls f(a, b, y, count) with both operands contiguous: repeated values are expanded.
template <class F>
void with_repeated(const void* a, IntType a_type, bool a_steps, const void* b, IntType b_type, bool b_steps, int64_t n,
                   const F& f) {
  if ((a_steps && b_steps) || n == 1) return f(a, b, int64_t{0}, n);
  alignas(64) int32_t filled[2][kRepeat];
  const auto fill = [&](int32_t* to, const void* from, IntType type) {
    const int32_t value = load(from, type, 0);
    const int64_t count = std::min(n, kRepeat);
    if (type == IntType::S32)
      std::fill_n(to, count, value);
    else if (type == IntType::S16)
      std::fill_n(reinterpret_cast<int16_t*>(to), count, static_cast<int16_t>(value));
    else
      std::memset(to, value, static_cast<size_t>(count));
  };
  if (!a_steps) fill(filled[0], a, a_type);
  if (!b_steps && b) fill(filled[1], b, b_type);
  for (int64_t i = 0; i < n; i += kRepeat) {
    const void* const from_a = a_steps ? static_cast<const void*>(at(a, a_type, i)) : filled[0];
    const void* const from_b = !b ? nullptr : b_steps ? static_cast<const void*>(at(b, b_type, i)) : filled[1];
    f(from_a, from_b, i, std::min(kRepeat, n - i));
  }
}

}  // namespace

Sum::Sum(const Elementwise& kernels, const SumSpec& spec) : kernels_(kernels) {
  const bool two = spec.terms.size() == 2;
  size_t channels = spec.shift.size();
  for (const SumSpec::Term& term : spec.terms) channels = std::max(channels, term.multiplier.size());
  shift_ = spread(spec.shift, channels);
  a_multiplier_ = spread(spec.terms[0].multiplier, channels);
  if (two) b_multiplier_ = spread(spec.terms[1].multiplier, channels);
  row_.range = spec.range;
  row_.uniform = channels == 1;
  row_.a_type = spec.terms[0].type;
  row_.b_type = two ? spec.terms[1].type : IntType::U8;
  row_.narrow = true;
  offset_.resize(channels);
  for (size_t c = 0; c < channels; c++) {
    auto offset = uint64_t{1} << (shift_[c] - 1);
    double sum = 0;
    for (size_t i = 0; i < spec.terms.size(); i++) {
      const int64_t z = spec.terms[i].zero_point, b = i ? b_multiplier_[c] : a_multiplier_[c];
      offset -= static_cast<uint64_t>(z * b);
      sum += magnitude(spec.terms[i].type, spec.terms[i].zero_point) * std::abs(static_cast<double>(b));
    }
    offset_[c] = static_cast<int64_t>(offset);
    row_.narrow = row_.narrow && is_narrow(sum, shift_[c], spec.range.zero_point);
  }
  if (row_.uniform && two) prepare_bytes();
  if (row_.uniform && !two) {
    identity_ = row_.a_type == spec.range.type && spec.terms[0].zero_point == spec.range.zero_point &&
                shift_[0] <= 30 && a_multiplier_[0] == int32_t{1} << shift_[0] &&
                spec.range.qmin == least_of(row_.a_type) && spec.range.qmax == most_of(row_.a_type);
    if (is_byte(row_.a_type) && is_byte(spec.range.type)) prepare_table();
  }
}

// Determines whether 32 bits suffice, and the halves for them.
void Sum::prepare_bytes() {
  constexpr int kHalf = 16;
  if (!is_byte(row_.a_type) || !is_byte(row_.b_type) || !is_byte(row_.range.type)) return;
  const int32_t c = shift_[0];
  if (c < kHalf || c > kHalf + 31) return;
  // m = high·2^16 + low with −2^15 <= low < 2^15.
  const auto high = [](int64_t m) { return (m + (1 << 15)) >> kHalf; };
  const auto low = [&](int64_t m) { return m - high(m) * (1 << kHalf); };
  const int64_t a = a_multiplier_[0], b = b_multiplier_[0], offset = offset_[0];
  if (std::max(std::abs(high(a)), std::abs(high(b))) > INT16_MAX) return;
  // Sums of high halves fit int32: the products stay below 2^24, the offset below 2^30 + 2^24.
  byte_sum_ = {row_.a_type == IntType::S8,
               row_.b_type == IntType::S8,
               static_cast<int16_t>(high(a)),
               static_cast<int16_t>(low(a)),
               static_cast<int16_t>(high(b)),
               static_cast<int16_t>(low(b)),
               static_cast<int32_t>(high(offset)),
               static_cast<int32_t>(low(offset)),
               c - kHalf,
               row_.range};
  bytes_ = true;
}

void Sum::prepare_table() {
  std::array<uint8_t, 256> all{};
  for (size_t i = 0; i < all.size(); i++) all[i] = static_cast<uint8_t>(i);
  row(all.data(), nullptr, 0, true, values_.data(), 256);
  table_ = true;
}

// Contiguous operands.
void Sum::row(const void* a, const void* b, int64_t channel, bool uniform, void* y, int64_t n) const {
  if (bytes_) return kernels_.byte_sum(byte_sum_, a, b, y, n);
  if (table_) return kernels_.lookup(values_.data(), static_cast<const uint8_t*>(a), static_cast<uint8_t*>(y), n);
  SumRow row = row_;
  row.a = a;
  row.b = b;
  row.uniform = uniform;
  row.a_multiplier = a_multiplier_.data() + channel;
  if (b) row.b_multiplier = b_multiplier_.data() + channel;
  row.shift = shift_.data() + channel;
  row.offset = offset_.data() + channel;
  row.y = y;
  row.n = n;
  kernels_.sum(row);
}

void Sum::run(const void* a, void* y, int64_t n) const {
  if (identity_)
    std::memcpy(y, a, static_cast<size_t>(n * size_of(row_.range.type)));
  else
    row(a, nullptr, 0, true, y, n);
}

void Sum::run(const Walk& walk, int64_t begin, int64_t end, const void* a, const void* b, void* y) const {
  const bool uniform_row = !walk.steps(2);
  walk.each(begin, end, [&](int64_t place, const int64_t* from, int64_t count) {
    const void* const from_b = b ? static_cast<const void*>(at(b, row_.b_type, from[1])) : nullptr;
    with_repeated(at(a, row_.a_type, from[0]), row_.a_type, walk.steps(0), from_b, row_.b_type, walk.steps(1) || !b,
                  count, [&](const void* p, const void* q, int64_t i, int64_t n) {
                    void* const to = at(y, row_.range.type, place + i);
                    row(p, q, from[2] + (uniform_row ? 0 : i), uniform_row, to, n);
                  });
  });
}

Product::Product(const Elementwise& kernels, const ProductRow& row) : kernels_(kernels), row_(row) {
  const double sum = magnitude(row.a_type, row.a_zero_point) * magnitude(row.b_type, row.b_zero_point) * row.multiplier;
  row_.narrow = is_narrow(sum, row.shift, row.range.zero_point);
}

void Product::run(const Walk& walk, int64_t begin, int64_t end, const void* a, const void* b, void* y) const {
  walk.each(begin, end, [&](int64_t place, const int64_t* from, int64_t count) {
    with_repeated(at(a, row_.a_type, from[0]), row_.a_type, walk.steps(0), at(b, row_.b_type, from[1]), row_.b_type,
                  walk.steps(1), count, [&](const void* p, const void* q, int64_t i, int64_t n) {
                    ProductRow row = row_;
                    row.a = p;
                    row.b = q;
                    row.y = at(y, row_.range.type, place + i);
                    row.n = n;
                    kernels_.product(row);
                  });
  });
}

}  // namespace onnxq
