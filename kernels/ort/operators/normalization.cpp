// com.onnxq:Softmax and LayerNorm, version 1. Their pages are docs/operators/*.md.
#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "cpu/operators/layer_norm.hpp"
#include "cpu/operators/softmax.hpp"
#include "cpu/tiers/tier.hpp"
#include "ort/operator.hpp"
#include "ort/output.hpp"
#include "ort/parts.hpp"
#include "ort/shapes.hpp"

namespace onnxq {
namespace {

void infer_same_shape(const Inference& node) {
  TensorType y = node.input("x");
  y.element = inferred_y_type(node);
  node.output(y);
}

class SoftmaxOp {
 public:
  explicit SoftmaxOp(const Node& node)
      : axis_(node.integer("axis")), softmax_(chosen_tier().elementwise(), spec(node)), memory_(node.scratch()) {}

  void compute(const Api& api, abi::KernelContext* context) const {
    const Tensor x = api.input(context, 0);
    const size_t axis = axis_of(axis_, x.dims.size(), "x");
    const int64_t n = x.dims[axis], inner = product(x.dims, axis + 1, x.dims.size());
    if (n > kLongest) throw Error("x has rows of " + std::to_string(n) + " values, at most 2^25 can be added up");
    void* const y = api.output(context, 0, x.dims);
    if (is_empty(x.dims)) return;
    const int64_t rows = product(x.dims, 0, axis) * inner;
    const bool direct = inner == 1;
    in_parts(api, context, rows, rows * (n + 200), memory_, direct ? 0 : static_cast<size_t>(n * (1 + size_of(type_))),
             [&](int64_t begin, int64_t end, uint8_t* scratch) {
               softmax_.run(x.as<uint8_t>(), n, inner, y, begin, end, scratch);
             });
  }

  static void infer(const Inference& node) { infer_same_shape(node); }

 private:
  static constexpr int64_t kLongest = int64_t{1} << 25;

  SoftmaxSpec spec(const Node& node) {
    SoftmaxSpec s{};
    s.is_signed = int_type_8bit(node.element("x"), "x") == IntType::S8;
    const auto table = node.constant_vector("table");
    if (table.size() != s.table.size()) throw Error("table must be a vector of 256 values");
    const auto [least, most] = std::minmax_element(table.begin(), table.end());
    if (*least < 0 || *most > 1 << 20 || table[0] == 0)
      throw Error("table must have values from 0 to 1048576, the first more than 0");
    std::copy(table.begin(), table.end(), s.table.begin());
    s.multiplier = one_value(multipliers(node, "multiplier"), "multiplier");
    s.shift = one_value(shifts(node), "shift");
    if (s.shift > 16) throw Error("shift " + std::to_string(s.shift) + " is not in 1 to 16");
    s.range = output_range(node);
    type_ = s.range.type;
    return s;
  }

  int64_t axis_;
  IntType type_;  // set by spec()
  Softmax softmax_;
  ScratchSource memory_;
};

class LayerNormOp {
 public:
  explicit LayerNormOp(const Node& node) : norm_(chosen_tier().elementwise(), spec(node)), memory_(node.scratch()) {}

  void compute(const Api& api, abi::KernelContext* context) const {
    const Tensor x = api.input(context, 0);
    if (x.dims.empty()) throw Error("x must have 1 dimension or more");
    const int64_t n = x.dims.back();
    if (n > LayerNorm::kLongest)
      throw Error("x has rows of " + std::to_string(n) + " values, at most 32768 are possible");
    if (norm_.channels() != 1 && norm_.channels() != n)
      throw Error("x has rows of " + std::to_string(n) + " values, gamma and beta are made for " +
                  std::to_string(norm_.channels()));
    void* const y = api.output(context, 0, x.dims);
    if (is_empty(x.dims)) return;
    const int64_t rows = product(x.dims, 0, x.dims.size() - 1);
    in_parts(api, context, rows, rows * (n + 100), memory_, static_cast<size_t>(n) * sizeof(int32_t),
             [&](int64_t begin, int64_t end, uint8_t* scratch) {
               norm_.run(x.data, n, y, begin, end, reinterpret_cast<int32_t*>(scratch));
             });
  }

  static void infer(const Inference& node) { infer_same_shape(node); }

 private:
  static LayerNormSpec spec(const Node& node) {
    LayerNormSpec s{};
    s.x_type = int_type(node.element("x"), "x");
    s.x_zero_point = zero_point(node, "x_zero_point", s.x_type);
    s.gamma = node.constant_vector("gamma");
    const Tensor beta = node.constant("beta");
    if (beta.element != abi::kInt64) throw Error("beta must be int64");
    if (beta.size == 0 || beta.dims.size() > 1) throw Error("beta must be one value or a vector");
    s.beta.assign(beta.as<int64_t>(), beta.as<int64_t>() + beta.size);
    for (const int64_t b : s.beta)
      if (b > kBeta || b < -kBeta) throw Error("beta " + std::to_string(b) + " is larger than 2^62");
    if (s.gamma.size() != s.beta.size() && s.gamma.size() != 1 && s.beta.size() != 1)
      throw Error("gamma has " + std::to_string(s.gamma.size()) + " values, beta " + std::to_string(s.beta.size()));
    s.shift = one_value(shifts(node), "shift");
    s.epsilon = node.integer("epsilon");
    if (s.epsilon < 0 || s.epsilon > kEpsilon)
      throw Error("epsilon " + std::to_string(s.epsilon) + " is not in 0 to 2^61");
    s.center = node.integer("center") != 0;
    s.range = output_range(node);
    return s;
  }

  static constexpr int64_t kBeta = int64_t{1} << 62, kEpsilon = int64_t{1} << 61;

  LayerNorm norm_;
  ScratchSource memory_;
};

ONNXQ_OPERATOR(Softmax, SoftmaxOp);
ONNXQ_OPERATOR(LayerNorm, LayerNormOp);

}  // namespace
}  // namespace onnxq
