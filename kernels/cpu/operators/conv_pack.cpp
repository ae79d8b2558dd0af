// What a convolution does once, when a session is made: prove bounds on its numbers, and pack weights in the order in
// which they are read.
#include <algorithm>
#include <cmath>

#include "cpu/common/sizes.hpp"
#include "cpu/operators/conv.hpp"
#include "cpu/operators/pair_proof.hpp"

namespace onnxq {

namespace {

// Vectors of 16 channels in each panel: `most` while there are as many, then the rest. Evenly sized panels of 3 are
// slower: 4, 2 and 1 fill whole registers of bytes.
std::vector<int> panel_widths(int64_t channels, int64_t most) {
  std::vector<int> widths;
  for (int64_t left = ceil_div(channels, kVector); left > 0; left -= widths.back())
    widths.push_back(static_cast<int>(std::min(left, most)));
  return widths;
}

// With fewer products an output the epilogue is what takes the time, and tiles add stores and loads to it.
constexpr int64_t kLeastTileProducts = 16;

const Tier& tier_for(const Tier& tier, const ConvShape& s) {
  const bool few = s.kh * s.kw * (s.in_channels / s.groups) < kLeastTileProducts;
  return tier.plain && few ? *tier.plain : tier;
}

// Whether the tier's tiles compute it; see Tier::convolve.
bool by_tiles(const Tier& tier, const ConvSpec& spec, const EpilogueBlock& e) {
  if (!tier.convolve || e.identity) return tier.convolve;
  return e.narrow && is_byte(e.range.type) &&
         (spec.residual_multiplier.empty() || (is_byte(spec.residual_type) && e.residual_shift <= kMostTileShift));
}

template <class Vector>
void pad_panel(Vector& values, int32_t fill) {
  values.insert(values.end(), kPanel, fill);
}

}  // namespace

Convolution::Convolution(const Tier& tier, const ConvSpec& spec)
    : tier_(tier_for(tier, spec.shape)), shape_(spec.shape), nibbles_(spec.nibbles), epilogue_{} {
  const ConvShape& s = shape_;
  const int64_t group_channels = s.in_channels / s.groups;
  depthwise_ = s.groups > 1 && group_channels == 1 && s.out_channels == s.groups && spec.residual_multiplier.empty() &&
               std::all_of(spec.w_zero_point.begin(), spec.w_zero_point.end(), [](int32_t z) { return z == 0; });
  affine_ = std::any_of(spec.w_zero_point.begin(), spec.w_zero_point.end(), [](int32_t z) { return z != 0; });
  flip_ = spec.x_type == IntType::S8;
  zero_point_ = spec.x_zero_point + (flip_ ? 128 : 0);
  // The taps of a kernel row are contiguous in memory: one long tap.
  merged_ = s.groups == 1 && s.dilation_w == 1;
  const int64_t run = merged_ ? s.kw * s.in_channels : group_channels;
  steps_ = static_cast<int>(ceil_div(run, kStep));
  tap_count_ = static_cast<int>(merged_ ? s.kh : s.kh * s.kw);
  const bool pads = s.top || s.left || s.bottom || s.right;
  copies_ = flip_ || (!depthwise_ && (pads || run % kStep != 0));

  multiplier_.assign(spec.multiplier.begin(), spec.multiplier.end());
  shift_.assign(spec.shift.begin(), spec.shift.end());
  residual_multiplier_.assign(spec.residual_multiplier.begin(), spec.residual_multiplier.end());
  w_zero_point_ = spec.w_zero_point;
  init_.resize(static_cast<size_t>(s.out_channels));
  const int64_t taps = s.kh * s.kw * group_channels;
  const double x_bound = std::max(zero_point_, 255 - zero_point_);
  std::vector<double> bound(static_cast<size_t>(s.out_channels));
  for (size_t m = 0; m < init_.size(); m++) {
    int64_t sum = 0, magnitude = 0;
    for (int64_t k = 0; k < taps; k++) {
      const int64_t w = spec.weights[static_cast<int64_t>(m) * taps + k];
      sum += w;
      magnitude += std::abs(w - spec.w_zero_point[m]);
    }
    init_[m] = add_wrapping(spec.bias[m], -int64_t{zero_point_} * sum);
    bound[m] = std::min(x_bound * static_cast<double>(magnitude) + std::abs(double{1} * spec.bias[m]), 2147483648.0);
  }

  epilogue_.range = spec.range;
  epilogue_.residual_type = spec.residual_type;
  epilogue_.residual_zero_point = spec.residual_zero_point;
  epilogue_.uniform_shift =
      std::all_of(shift_.begin(), shift_.end(), [&](int32_t c) { return c == shift_[0]; }) ? shift_[0] : 0;
  epilogue_.one_residual_multiplier = std::all_of(residual_multiplier_.begin(), residual_multiplier_.end(),
                                                  [&](int32_t b) { return b == residual_multiplier_[0]; });
  epilogue_.narrow = proven_narrow(bound);
  prefer_shift_32();
  epilogue_.spare_bit = has_spare_bit();
  epilogue_.identity = spec.range.type == IntType::S32 && spec.range.zero_point == 0 && spec.range.qmin == INT32_MIN &&
                       spec.range.qmax == INT32_MAX && spec.residual_multiplier.empty();
  for (size_t m = 0; m < multiplier_.size(); m++)
    epilogue_.identity = epilogue_.identity && shift_[m] <= 30 && multiplier_[m] == int32_t{1} << shift_[m];

  if (!depthwise_ && !affine_ && by_tiles(tier_, spec, epilogue_)) form_ = tile_form(s);
  if (form_.used) {
    copies_ = copies_ || form_.row_group || form_.phases;
    merged_ = form_.merged;
    tap_count_ = form_.tap_count;
    steps_ = form_.steps;
  }
  if (depthwise_) {
    epilogue_.interleaved = tier_.interleaved;
    pack_depthwise(spec);
  } else {
    pack(spec);
    pad_panel(init_, 0);
    pad_panel(multiplier_, 0);
    pad_panel(shift_, 1);
    pad_panel(w_zero_point_, 0);
    if (!residual_multiplier_.empty()) pad_panel(residual_multiplier_, 0);
  }
}

// Whether every scaled sum fits int32, zero point included, and the zero point may be part of the rounding constant:
// |Σ| + 2^(c−1) + |zp|·2^c < 2^63. In double, with a margin far above its rounding errors.
bool Convolution::proven_narrow(const std::vector<double>& acc_bound) const {
  const double residual = std::ldexp(2.0, static_cast<int>(8 * size_of(epilogue_.residual_type)));
  for (size_t m = 0; m < acc_bound.size(); m++) {
    double sum = acc_bound[m] * multiplier_[m];
    if (!residual_multiplier_.empty()) sum += residual * residual_multiplier_[m];
    const double scale = std::ldexp(1.0, shift_[m]);
    sum += scale * (std::abs(double{1} * epilogue_.range.zero_point) + 1);
    if (sum >= 9.2e18 || sum / scale >= 2.1e9) return false;
  }
  return true;
}

// (Σ + 2^(c−1)) >> c = (2^k·Σ + 2^31) >> 32 for c + k = 32. Where the sum is narrow, 2^k·Σ still fits 64 bits.
void Convolution::prefer_shift_32() {
  const int k = 32 - epilogue_.uniform_shift;
  if (!epilogue_.narrow || !epilogue_.uniform_shift || k <= 0 || k > 20) return;
  if (!residual_multiplier_.empty() && !is_byte(epilogue_.residual_type)) return;
  const bool fits = std::all_of(multiplier_.begin(), multiplier_.end(), [k](int32_t b) { return b >> (31 - k) == 0; });
  if (!fits) return;
  for (int32_t& b : multiplier_) b <<= k;
  std::fill(shift_.begin(), shift_.end(), 32);
  epilogue_.uniform_shift = 32;
  epilogue_.residual_shift = k;
}

// Zero points of 8-bit tensors are bytes, so that these doubled sums fit 64 bits.
bool Convolution::has_spare_bit() const {
  const int64_t most = INT32_MAX, by = int64_t{2} << epilogue_.residual_shift;
  return epilogue_.narrow && epilogue_.uniform_shift == 32 &&
         std::all_of(multiplier_.begin(), multiplier_.end(), [&](int32_t b) { return 2 * int64_t{b} <= most; }) &&
         (residual_multiplier_.empty() ||
          (is_byte(epilogue_.residual_type) && std::all_of(residual_multiplier_.begin(), residual_multiplier_.end(),
                                                           [&](int32_t b) { return by * b <= most; })));
}

void Convolution::pack(const ConvSpec& spec) {
  const ConvShape& s = shape_;
  const int64_t group_in = s.in_channels / s.groups, group_out = s.out_channels / s.groups;
  const int64_t run = merged_ ? s.kw * s.in_channels : group_in;
  const int64_t window_taps = merged_ ? s.kh : s.kh * s.kw, rows = form_.row_group;
  const auto widths = panel_widths(group_out, form_.used ? 2 : kPanel / kVector);
  const size_t tap_bytes = static_cast<size_t>(steps_) * kVector * kStep;
  std::vector<int8_t> packed, bytes;
  for (int64_t g = 0; g < s.groups; g++) {
    int64_t n0 = 0;
    for (const int vectors : widths) {
      const int64_t channels = std::min<int64_t>(vectors * kVector, group_out - n0);
      panels_.push_back({g, g * group_out + n0, vectors, static_cast<int>(channels), packed.size()});
      bytes.assign(tap_bytes * static_cast<size_t>(tap_count_ * vectors), 0);
      for (int64_t n = 0; n < channels; n++) {
        // A channel's weights in memory: tap after tap, `run` values each.
        const int8_t* w = spec.weights + (g * group_out + n0 + n) * window_taps * run;
        for (int64_t t = 0; t < window_taps; t++)
          for (int64_t k = 0; k < run; k++) {
            // Rows beside each other: [pixel][row][channel].
            const int64_t tap = rows ? t / rows : t;
            const int64_t at = rows ? (k / group_in * rows + t % rows) * group_in + k % group_in : k;
            const int64_t step = tap * steps_ + at / kStep;
            bytes[static_cast<size_t>((step * vectors * kVector + n) * kStep + at % kStep)] = *w++;
          }
      }
      if (nibbles_) {
        bytes.resize(nibble_lines(bytes.size()) * 2 * kLine);
        for (size_t i = 0; i < bytes.size(); i += 2 * kLine)
          for (size_t k = i; k < i + kLine; k++)
            packed.push_back(static_cast<int8_t>((bytes[k] & 15) | (bytes[k + kLine] & 15) << 4));
      } else {
        packed.insert(packed.end(), bytes.begin(), bytes.end());
      }
      n0 += channels;
    }
  }
  pairs_fit_ = nibbles_ || all_pairs_fit(packed.data(), packed.size());
  packed_ = LargePages(packed);
  if (affine_) {  // a panel whose first channel sums the row, for weights with a zero point
    ones_.assign(tap_bytes * static_cast<size_t>(tap_count_), 0);
    for (int64_t t = 0; t < tap_count_; t++)
      for (int64_t k = 0; k < run; k++)
        ones_[static_cast<size_t>(((t * steps_ + k / kStep) * kVector) * kStep + k % kStep)] = 1;
  }
}

void Convolution::pack_depthwise(const ConvSpec& spec) {
  const auto kh = static_cast<int>(shape_.kh), kw = static_cast<int>(shape_.kw);
  const auto channels = static_cast<int>(shape_.in_channels);
  std::vector<int8_t> packed(tier_.pack_depthwise(spec.weights, kh, kw, channels, nullptr));
  tier_.pack_depthwise(spec.weights, kh, kw, channels, packed.data());
  packed_ = LargePages(packed);
  nibbles_ = false;
  const auto panels = static_cast<size_t>(ceil_div(channels, kPanel));
  const auto ordered = [&](LineVector<int32_t>& values, int32_t fill) {
    LineVector<int32_t> padded(panels * kPanel, fill);
    for (size_t i = 0; i < padded.size(); i++) {
      const size_t in_panel =
          tier_.interleaved ? static_cast<size_t>(interleave(static_cast<int>(i % kPanel))) : i % kPanel;
      const size_t channel = i / kPanel * kPanel + in_panel;
      if (channel < values.size()) padded[i] = values[channel];
    }
    values = std::move(padded);
  };
  ordered(init_, 0);
  ordered(multiplier_, 0);
  ordered(shift_, 1);
}

}  // namespace onnxq
