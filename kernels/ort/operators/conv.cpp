// com.onnxq:Conv, ConvAdd, Gemm and GemmAdd, version 1. Their pages are docs/operators/*.md.
#include "cpu/operators/conv.hpp"

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "cpu/common/sizes.hpp"
#include "cpu/common/slots.hpp"
#include "cpu/tiers/tier.hpp"
#include "ort/operator.hpp"
#include "ort/output.hpp"
#include "ort/shapes.hpp"

namespace onnxq {
namespace {

using Ints = Dims;

constexpr size_t kX = 0, kResidual = 6;  // inputs, while a kernel runs

struct Weights {
  std::vector<int8_t> values;
  Ints dims;
  bool nibbles;
};

Weights weights_of(const Node& node) {
  const Tensor w = node.constant("w");
  Weights weights{std::vector<int8_t>(w.size), w.dims, w.element == abi::kInt4};
  if (w.element == abi::kInt8) {
    std::copy_n(w.as<int8_t>(), w.size, weights.values.begin());
  } else if (w.element == abi::kInt4) {
    for (size_t i = 0; i < w.size; i++) {
      const int nibble = w.as<uint8_t>()[i / 2] >> (i % 2 * 4) & 15;
      weights.values[i] = static_cast<int8_t>(nibble < 8 ? nibble : nibble - 16);
    }
  } else {
    throw Error(std::string("w must be int8 or int4, not ") + type_name(w.element));
  }
  return weights;
}

std::vector<int32_t> weight_zero_points(const Node& node, size_t channels) {
  const Tensor z = node.constant("w_zero_point");
  if (z.element != abi::kInt8) throw Error("w_zero_point must be int8");
  if (z.size == 0 || z.dims.size() > 1) throw Error("w_zero_point must be one value or a vector");
  return per_channel({z.as<int8_t>(), z.as<int8_t>() + z.size}, channels, "w_zero_point");
}

// What Conv and Gemm share: everything after the weights.
template <bool Residual>
ConvSpec spec_of(const Node& node, const ConvShape& shape, bool nibbles) {
  const auto channels = static_cast<size_t>(shape.out_channels);
  ConvSpec spec{};
  spec.shape = shape;
  spec.nibbles = nibbles;
  spec.x_type = int_type_8bit(node.element("x"), "x");
  spec.x_zero_point = zero_point(node, "x_zero_point", spec.x_type);
  spec.range = output_range(node);
  spec.bias = node.constant_vector("bias");
  if (spec.bias.size() != channels)
    throw Error("bias has " + std::to_string(spec.bias.size()) + " values for " + std::to_string(channels) +
                " channels");
  spec.multiplier = per_channel(multipliers(node, "multiplier"), channels, "multiplier");
  spec.shift = per_channel(shifts(node), channels, "shift");
  spec.w_zero_point = weight_zero_points(node, channels);
  if (Residual) {
    spec.residual_type = int_type(node.element("residual"), "residual");
    spec.residual_zero_point = zero_point(node, "residual_zero_point", spec.residual_type);
    spec.residual_multiplier = per_channel(multipliers(node, "residual_multiplier"), channels, "residual_multiplier");
  }
  return spec;
}

// Runs a packed convolution over x: n images of h × w pixels, on the session's threads.
template <bool Residual>
void run(const Api& api, abi::KernelContext* context, const Convolution& convolution, const ScratchSource& memory,
         const Tensor& x, int64_t n, int64_t h, int64_t w, const Ints& y_dims, IntType residual_type, IntType y_type) {
  const uint8_t* residual = nullptr;
  if (Residual) {
    const Tensor r = api.input(context, kResidual);
    if (r.dims != y_dims) throw Error("residual has shape " + shape_text(r.dims) + ", y has " + shape_text(y_dims));
    residual = r.as<uint8_t>();
  }
  auto* y = static_cast<uint8_t*>(api.output(context, 0, y_dims));
  if (is_empty(y_dims)) return;
  const auto values = static_cast<size_t>(product(y_dims, 0, y_dims.size()) / n);
  const auto* images = x.as<uint8_t>();
  const size_t image_bytes = x.size / static_cast<size_t>(n);
  const int64_t most = std::min(n, convolution.images_at_a_time(h, w));
  for (int64_t first = 0; first < n; first += most) {
    const auto plan = convolution.plan(std::min(most, n - first), h, w);
    const Scratch scratch = memory.take(plan.copy_bytes + plan.scratch_bytes * plan.parts());
    const auto at = static_cast<size_t>(first);
    const uint8_t* from = images + at * image_bytes;
    if (plan.copy_bytes) {
      api.parallel_for(context, static_cast<size_t>(plan.copy_parts),
                       [&](size_t i) { convolution.copy(plan, i, from, scratch.data()); });
    }
    const uint8_t* const input = plan.copy_bytes ? scratch.data() : from;
    const uint8_t* const r = residual ? residual + at * values * static_cast<size_t>(size_of(residual_type)) : nullptr;
    uint8_t* const to = y + at * values * static_cast<size_t>(size_of(y_type));
    Slots slots(plan.parts());
    api.parallel_for(context, plan.parts(), [&](size_t i) {
      const size_t slot = slots.take();
      convolution.run(plan, i, input, r, to, scratch.data() + plan.copy_bytes + slot * plan.scratch_bytes);
      slots.give_back(slot);
    });
  }
}

template <bool Residual>
class Conv {
 public:
  static constexpr int kReplaced = Residual ? int{kResidual} : -1;

  explicit Conv(const Node& node) : convolution_(make(node)), memory_(node.scratch()) {}

  void compute(const Api& api, abi::KernelContext* context) const {
    const Tensor x = api.input(context, kX);
    if (x.dims.size() != 4) throw Error("x must have 4 dimensions [N, H, W, C], its shape is " + shape_text(x.dims));
    if (x.dims[3] != shape_.in_channels)
      throw Error("x has " + std::to_string(x.dims[3]) + " channels, w expects " + std::to_string(shape_.in_channels));
    check_padded(x.dims, {shape_.top, shape_.left, shape_.bottom, shape_.right});
    // A depthwise convolution has a pointer for every pixel below the kernel's rows.
    if (bounded_product(x.dims[2] + shape_.left + shape_.right, shape_.kh) > kMostValues)
      throw Error("w has shape with " + std::to_string(shape_.kh) + " rows, too many for x of shape " +
                  shape_text(x.dims));
    run<Residual>(api, context, convolution_, memory_, x, x.dims[0], x.dims[1], x.dims[2],
                  {x.dims[0], convolution_.out_h(x.dims[1]), convolution_.out_w(x.dims[2]), shape_.out_channels},
                  residual_type_, y_type_);
  }

  static void infer(const Inference& node) {
    TensorType y = node.input("x");
    const TensorType w = node.input("w");
    y.element = inferred_y_type(node);
    if (y.dims.empty()) {  // unknown rank: Conv takes no other
      y.dims.assign(4, -1);
      y.symbols.assign(4, "");
    }
    if (y.dims.size() == 4 && w.dims.size() == 4) {
      const Ints strides = node.integers("strides"), dilations = node.integers("dilations");
      const Ints pads = node.integers("pads");
      check_window(strides, pads, dilations);
      check_dims(y.dims, "x");
      check_dims(w.dims, "w");
      for (size_t i = 0; i < 2; i++) {
        y.symbols[i + 1] = "";
        if (y.dims[i + 1] < 0 || w.dims[i + 1] < 0) {
          y.dims[i + 1] = -1;
          continue;
        }
        y.dims[i + 1] = out_size(y.dims[i + 1], pads[i] + pads[i + 2], w.dims[i + 1], dilations[i], strides[i]);
      }
      y.dims[3] = w.dims[0];
      y.symbols[3] = "";
    }
    node.output(y);
  }

 private:
  Convolution make(const Node& node) {
    const Weights w = weights_of(node);
    if (w.dims.size() != 4)
      throw Error("w must have 4 dimensions [M, kH, kW, C / group], its shape is " + shape_text(w.dims));
    check_dims(w.dims, "w");
    shape_.groups = node.integer("group");
    shape_.out_channels = w.dims[0];
    check_sizes({shape_.groups}, 1, 1, "group");
    if (w.dims[0] % shape_.groups)
      throw Error("group " + std::to_string(shape_.groups) + " does not divide the " + std::to_string(w.dims[0]) +
                  " channels");
    shape_.kh = w.dims[1], shape_.kw = w.dims[2];
    shape_.in_channels = w.dims[3] * shape_.groups;
    check_sizes({shape_.in_channels}, 1, 0, "C of w times group");
    const Ints strides = node.integers("strides"), dilations = node.integers("dilations"), pads = node.integers("pads");
    check_window(strides, pads, dilations);
    shape_.stride_h = strides[0], shape_.stride_w = strides[1];
    shape_.dilation_h = dilations[0], shape_.dilation_w = dilations[1];
    shape_.top = pads[0], shape_.left = pads[1], shape_.bottom = pads[2], shape_.right = pads[3];
    ConvSpec spec = spec_of<Residual>(node, shape_, w.nibbles);
    spec.weights = w.values.data();
    residual_type_ = spec.residual_type, y_type_ = spec.range.type;
    return Convolution(chosen_tier(), spec);
  }

  ConvShape shape_{};
  IntType residual_type_{}, y_type_{};
  Convolution convolution_;
  ScratchSource memory_;
};

template <bool Residual>
class Gemm {
 public:
  static constexpr int kReplaced = Residual ? int{kResidual} : -1;

  explicit Gemm(const Node& node) : convolution_(make(node)), memory_(node.scratch()) {}

  void compute(const Api& api, abi::KernelContext* context) const {
    const Tensor x = api.input(context, kX);
    if (x.dims.size() < 2) throw Error("x must have at least 2 dimensions, its shape is " + shape_text(x.dims));
    if (x.dims.back() != k_)
      throw Error("x has rows of " + std::to_string(x.dims.back()) + " values, w has " + std::to_string(k_) + " rows");
    const int64_t rows = product(x.dims, 0, x.dims.size() - 1);
    Ints y_dims = x.dims;
    y_dims.back() = n_;
    run<Residual>(api, context, convolution_, memory_, x, 1, 1, rows, y_dims, residual_type_, y_type_);
  }

  static void infer(const Inference& node) {
    TensorType y = node.input("x");
    const TensorType w = node.input("w");
    y.element = inferred_y_type(node);
    if (!y.dims.empty() && w.dims.size() == 2) {
      y.dims.back() = w.dims[1];
      y.symbols.back() = "";
    }
    node.output(y);
  }

 private:
  Convolution make(const Node& node) {
    const Weights w = weights_of(node);
    if (w.dims.size() != 2) throw Error("w must have 2 dimensions [K, N], its shape is " + shape_text(w.dims));
    k_ = w.dims[0], n_ = w.dims[1];
    std::vector<int8_t> by_channel(w.values.size());
    for (int64_t k = 0; k < k_; k++)
      for (int64_t n = 0; n < n_; n++)
        by_channel[static_cast<size_t>(n * k_ + k)] = w.values[static_cast<size_t>(k * n_ + n)];
    ConvShape shape{};
    shape.in_channels = k_, shape.out_channels = n_;
    ConvSpec spec = spec_of<Residual>(node, shape, w.nibbles);
    spec.weights = by_channel.data();
    residual_type_ = spec.residual_type, y_type_ = spec.range.type;
    return Convolution(chosen_tier(), spec);
  }

  int64_t k_ = 0, n_ = 0;
  IntType residual_type_{}, y_type_{};
  Convolution convolution_;
  ScratchSource memory_;
};

ONNXQ_OPERATOR(Conv, Conv<false>);
ONNXQ_OPERATOR(ConvAdd, Conv<true>);
ONNXQ_OPERATOR(Gemm, Gemm<false>);
ONNXQ_OPERATOR(GemmAdd, Gemm<true>);

}  // namespace
}  // namespace onnxq
