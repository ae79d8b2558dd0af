// com.onnxq:Add, Sub, Mul and Requantize, version 1. Their pages are docs/operators/*.md.
#include <cstdint>
#include <string>
#include <vector>

#include "cpu/operators/sum.hpp"
#include "ort/operator.hpp"
#include "ort/operators.hpp"
#include "ort/output.hpp"
#include "ort/parts.hpp"
#include "ort/shapes.hpp"

namespace onnxq {
namespace {

constexpr int64_t kGrain = 256;  // places: parts begin at whole cache lines

// Vectors of one value or of C, the same C for all.
void check_lengths(const std::vector<std::pair<const char*, const std::vector<int32_t>*>>& vectors) {
  size_t channels = 1;
  for (const auto& [name, values] : vectors) channels = std::max(channels, values->size());
  for (const auto& [name, values] : vectors)
    if (values->size() != 1 && values->size() != channels)
      throw Error(std::string(name) + " has " + std::to_string(values->size()) + " values where others have " +
                  std::to_string(channels));
}

// Strides of the vectors along `axis` of y.
Dims channel_strides(const Sum& sum, int64_t axis, const Dims& y) {
  if (sum.channels() == 1) return {};
  const size_t at = axis_of(axis, y.size(), "y");
  if (y[at] != sum.channels())
    throw Error("multiplier and shift are made for " + std::to_string(sum.channels()) + " places, y has the shape " +
                shape_text(y) + ", " + std::to_string(y[at]) + " along axis " + std::to_string(axis));
  Dims strides(y.size(), 0);
  strides[at] = 1;
  return strides;
}

class Requantize {
 public:
  Requantize(const Api& api, const abi::KernelInfo* info)
      : axis_(api.attribute(info, "axis", -1)), sum_(chosen_elementwise(), spec(api, info)) {}

  void compute(const Api& api, abi::KernelContext* context) const {
    const Tensor x = api.input(context, 0);
    const Dims channels = channel_strides(sum_, axis_, x.dims);
    void* const y = api.output(context, 0, x.dims);
    const Walk walk(x.dims, {broadcast_strides(x.dims, x.dims), {}, channels});
    const auto size = static_cast<int64_t>(x.size);
    in_parts(api, context, size, size, kGrain,
             [&](int64_t begin, int64_t end) { sum_.run(walk, begin, end, x.data, nullptr, y); });
  }

  static void infer(const Api& api, abi::ShapeContext* context) {
    TensorType y = api.inferred_input(context, 0);
    y.element = inferred_y_type(api, context);
    api.infer_output(context, 0, y);
  }

 private:
  static SumSpec spec(const Api& api, const abi::KernelInfo* info) {
    const IntType type = int_type(api.input_element(info, 0), "x");
    SumSpec s{{{type, zero_point(api, info, "x_zero_point", type), multipliers(api, info, 1, "multiplier")}},
              shifts(api, info, 2),
              output_range(api, info)};
    check_lengths({{"multiplier", &s.terms[0].multiplier}, {"shift", &s.shift}});
    return s;
  }

  int64_t axis_;
  Sum sum_;
};

template <bool Subtract>
class AddOrSub {
 public:
  AddOrSub(const Api& api, const abi::KernelInfo* info)
      : axis_(api.attribute(info, "axis", -1)), sum_(chosen_elementwise(), spec(api, info)) {}

  void compute(const Api& api, abi::KernelContext* context) const {
    const Tensor a = api.input(context, 0), b = api.input(context, 1);
    const Dims dims = broadcast_or_throw(a.dims, b.dims);
    const Dims channels = channel_strides(sum_, axis_, dims);
    void* const y = api.output(context, 0, dims);
    const Walk walk(dims, {broadcast_strides(a.dims, dims), broadcast_strides(b.dims, dims), channels});
    in_parts(api, context, walk.size(), walk.size(), kGrain,
             [&](int64_t begin, int64_t end) { sum_.run(walk, begin, end, a.data, b.data, y); });
  }

  static void infer(const Api& api, abi::ShapeContext* context) {
    TensorType y = inferred_broadcast(api.inferred_input(context, 0), api.inferred_input(context, 1));
    y.element = inferred_y_type(api, context);
    api.infer_output(context, 0, y);
  }

 private:
  static SumSpec spec(const Api& api, const abi::KernelInfo* info) {
    const IntType a = int_type(api.input_element(info, 0), "a"), b = int_type(api.input_element(info, 1), "b");
    SumSpec s{{{a, zero_point(api, info, "a_zero_point", a), multipliers(api, info, 2, "a_multiplier")},
               {b, zero_point(api, info, "b_zero_point", b), multipliers(api, info, 3, "b_multiplier")}},
              shifts(api, info, 4),
              output_range(api, info)};
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
  Mul(const Api& api, const abi::KernelInfo* info) : product_(chosen_elementwise(), row(api, info)) {}

  void compute(const Api& api, abi::KernelContext* context) const {
    const Tensor a = api.input(context, 0), b = api.input(context, 1);
    const Dims dims = broadcast_or_throw(a.dims, b.dims);
    void* const y = api.output(context, 0, dims);
    const Walk walk(dims, {broadcast_strides(a.dims, dims), broadcast_strides(b.dims, dims)});
    in_parts(api, context, walk.size(), walk.size(), kGrain,
             [&](int64_t begin, int64_t end) { product_.run(walk, begin, end, a.data, b.data, y); });
  }

  static void infer(const Api& api, abi::ShapeContext* context) { AddOrSub<false>::infer(api, context); }

 private:
  static ProductRow row(const Api& api, const abi::KernelInfo* info) {
    ProductRow r{};
    r.a_type = int_type_8bit(api.input_element(info, 0), "a");
    r.b_type = int_type_8bit(api.input_element(info, 1), "b");
    r.a_zero_point = zero_point(api, info, "a_zero_point", r.a_type);
    r.b_zero_point = zero_point(api, info, "b_zero_point", r.b_type);
    r.multiplier = one_value(multipliers(api, info, 2, "multiplier"), "multiplier");
    r.shift = one_value(shifts(api, info, 3), "shift");
    r.range = output_range(api, info);
    return r;
  }

  Product product_;
};

}  // namespace

Operators elementwise_operators(const Api& api) {
  return join({operators<Requantize>(api, "Requantize", 3), operators<AddOrSub<false>>(api, "Add", 5),
               operators<AddOrSub<true>>(api, "Sub", 5), operators<Mul>(api, "Mul", 4)});
}

}  // namespace onnxq
