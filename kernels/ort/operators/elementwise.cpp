// com.onnxq:Add, Sub, Mul and Requantize, version 1. Their pages are docs/operators/*.md.
#include <cstdint>
#include <string>
#include <vector>

#include "cpu/operators/sum.hpp"
#include "cpu/tiers/tier.hpp"
#include "ort/operator.hpp"
#include "ort/output.hpp"
#include "ort/parts.hpp"
#include "ort/shapes.hpp"

namespace onnxq {
namespace {

constexpr int64_t kGrain = 256;  // positions: parts begin at whole cache lines

// Vectors must have one value or C values, with the same C for all.
void check_lengths(const std::vector<std::pair<const char*, const std::vector<int32_t>*>>& vectors) {
  size_t channels = 1;
  for (const auto& [name, values] : vectors) channels = std::max(channels, values->size());
  for (const auto& [name, values] : vectors)
    if (values->size() != 1 && values->size() != channels)
      throw Error(std::string(name) + " has " + std::to_string(values->size()) + " values, others have " +
                  std::to_string(channels));
}

// Strides of the vectors in y's shape: 1 along `axis`.
Dims channel_strides(const Sum& sum, int64_t axis, const Dims& y) {
  if (sum.channels() == 1) return {};
  const size_t at = axis_of(axis, y.size(), "y");
  if (y[at] != sum.channels())
    throw Error("multiplier and shift have " + std::to_string(sum.channels()) + " values, y of shape " + shape_text(y) +
                " has " + std::to_string(y[at]) + " along axis " + std::to_string(axis));
  Dims strides(y.size(), 0);
  strides[at] = 1;
  return strides;
}

class Requantize {
 public:
  explicit Requantize(const Node& node) : axis_(node.integer("axis")), sum_(chosen_tier().elementwise(), spec(node)) {}

  void compute(const Api& api, abi::KernelContext* context) const {
    const Tensor x = api.input(context, 0);
    const Dims channels = channel_strides(sum_, axis_, x.dims);
    void* const y = api.output(context, 0, x.dims);
    const Walk walk(x.dims, {broadcast_strides(x.dims, x.dims), {}, channels});
    const auto size = static_cast<int64_t>(x.size);
    in_parts(api, context, size, size, kGrain,
             [&](int64_t begin, int64_t end) { sum_.run(walk, begin, end, x.data, nullptr, y); });
  }

  static void infer(const Inference& node) { infer_same_shape(node); }

 private:
  static SumSpec spec(const Node& node) {
    const IntType type = int_type(node.element("x"), "x");
    SumSpec s{{{type, zero_point(node, "x_zero_point", type), multipliers(node, "multiplier")}},
              shifts(node),
              output_range(node)};
    check_lengths({{"multiplier", &s.terms[0].multiplier}, {"shift", &s.shift}});
    return s;
  }

  int64_t axis_;
  Sum sum_;
};

template <bool Subtract>
class AddOrSub {
 public:
  explicit AddOrSub(const Node& node) : axis_(node.integer("axis")), sum_(chosen_tier().elementwise(), spec(node)) {}

  void compute(const Api& api, abi::KernelContext* context) const {
    const Tensor a = api.input(context, 0), b = api.input(context, 1);
    const Dims dims = broadcast_or_throw(a.dims, b.dims);
    const Dims channels = channel_strides(sum_, axis_, dims);
    void* const y = api.output(context, 0, dims);
    const Walk walk(dims, {broadcast_strides(a.dims, dims), broadcast_strides(b.dims, dims), channels});
    in_parts(api, context, walk.size(), walk.size(), kGrain,
             [&](int64_t begin, int64_t end) { sum_.run(walk, begin, end, a.data, b.data, y); });
  }

  static void infer(const Inference& node) {
    TensorType y = inferred_broadcast(node.input("a"), node.input("b"));
    y.element = inferred_y_type(node);
    node.output(y);
  }

 private:
  static SumSpec spec(const Node& node) {
    const IntType a = int_type(node.element("a"), "a"), b = int_type(node.element("b"), "b");
    SumSpec s{{{a, zero_point(node, "a_zero_point", a), multipliers(node, "a_multiplier")},
               {b, zero_point(node, "b_zero_point", b), multipliers(node, "b_multiplier")}},
              shifts(node),
              output_range(node)};
    check_lengths(
        {{"a_multiplier", &s.terms[0].multiplier}, {"b_multiplier", &s.terms[1].multiplier}, {"shift", &s.shift}});
    if (Subtract)
      for (int32_t& m : s.terms[1].multiplier) m = -m;
    return s;
  }

  int64_t axis_;
  Sum sum_;
};

class Mul {
 public:
  explicit Mul(const Node& node) : product_(chosen_tier().elementwise(), row(node)) {}

  void compute(const Api& api, abi::KernelContext* context) const {
    const Tensor a = api.input(context, 0), b = api.input(context, 1);
    const Dims dims = broadcast_or_throw(a.dims, b.dims);
    void* const y = api.output(context, 0, dims);
    const Walk walk(dims, {broadcast_strides(a.dims, dims), broadcast_strides(b.dims, dims)});
    in_parts(api, context, walk.size(), walk.size(), kGrain,
             [&](int64_t begin, int64_t end) { product_.run(walk, begin, end, a.data, b.data, y); });
  }

  static void infer(const Inference& node) { AddOrSub<false>::infer(node); }

 private:
  static ProductRow row(const Node& node) {
    ProductRow r{};
    r.a_type = int_type_8bit(node.element("a"), "a");
    r.b_type = int_type_8bit(node.element("b"), "b");
    r.a_zero_point = zero_point(node, "a_zero_point", r.a_type);
    r.b_zero_point = zero_point(node, "b_zero_point", r.b_type);
    r.multiplier = one_value(multipliers(node, "multiplier"), "multiplier");
    r.shift = one_value(shifts(node), "shift");
    r.range = output_range(node);
    return r;
  }

  Product product_;
};

ONNXQ_OPERATOR(Requantize, Requantize);
ONNXQ_OPERATOR(Add, AddOrSub<false>);
ONNXQ_OPERATOR(Sub, AddOrSub<true>);
ONNXQ_OPERATOR(Mul, Mul);

}  // namespace
}  // namespace onnxq
