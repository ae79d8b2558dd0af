// com.onnxq:LayerNorm, version 1. Its page is docs/operators/LayerNorm.md.
#include "cpu/operators/layer_norm.hpp"

#include <cstdint>
#include <string>

#include "cpu/tiers/tier.hpp"
#include "ort/operator.hpp"
#include "ort/output.hpp"
#include "ort/parts.hpp"
#include "ort/shapes.hpp"

namespace onnxq {
namespace {

class LayerNormOp {
 public:
  explicit LayerNormOp(const Node& node) : norm_(chosen_tier().elementwise(), spec(node)), memory_(node.scratch()) {}

  void compute(const Api& api, abi::KernelContext* context) const {
    const Tensor x = api.input(context, 0);
    if (x.dims.empty()) throw Error("x must have at least 1 dimension");
    const int64_t n = x.dims.back();
    if (n > LayerNorm::kLongest)
      throw Error("x has rows of " + std::to_string(n) + " values, at most 32768 are supported");
    if (norm_.channels() != 1 && norm_.channels() != n)
      throw Error("x has rows of " + std::to_string(n) + " values, gamma and beta have " +
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
      if (b > kBeta || b < -kBeta) throw Error("beta " + std::to_string(b) + " is outside [-2^62, 2^62]");
    if (s.gamma.size() != s.beta.size() && s.gamma.size() != 1 && s.beta.size() != 1)
      throw Error("gamma has " + std::to_string(s.gamma.size()) + " values, beta " + std::to_string(s.beta.size()));
    s.shift = one_value(shifts(node), "shift");
    s.epsilon = node.integer("epsilon");
    if (s.epsilon < 0 || s.epsilon > kEpsilon)
      throw Error("epsilon " + std::to_string(s.epsilon) + " is not in [0, 2^61]");
    const int64_t center = node.integer("center");
    if (center != 0 && center != 1) throw Error("center must be 0 or 1, not " + std::to_string(center));
    s.center = center == 1;
    s.range = output_range(node);
    return s;
  }

  static constexpr int64_t kBeta = int64_t{1} << 62, kEpsilon = int64_t{1} << 61;

  LayerNorm norm_;
  ScratchSource memory_;
};

ONNXQ_OPERATOR(LayerNorm, LayerNormOp);

}  // namespace
}  // namespace onnxq
