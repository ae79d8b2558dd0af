// com.onnxq:Concat2 to Concat8, version 1. Their pages are docs/operators/*.md.
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

template <size_t Count>
class Concat {
 public:
  explicit Concat(const Node& node) : axis_(node.integer("axis")), y_(output_range(node)) {
    const auto multiplier = multipliers(node, "multiplier"), shift = shifts(node);
    const auto zero_points = node.integers("zero_points");
    if (multiplier.size() != Count || shift.size() != Count || zero_points.size() != Count)
      throw Error("multiplier, shift and zero_points must have " + std::to_string(Count) + " values each, not " +
                  std::to_string(multiplier.size()) + ", " + std::to_string(shift.size()) + " and " +
                  std::to_string(zero_points.size()));
    for (size_t i = 0; i < Count; i++) {
      const std::string name = "x_" + std::to_string(i);
      const IntType type = int_type(node.element(name.c_str()), name.c_str());
      const int32_t z = zero_point(zero_points[i], "zero_points of " + name, type);
      types_.push_back(type);
      parts_.emplace_back(chosen_tier().elementwise(), SumSpec{{{type, z, {multiplier[i]}}}, {shift[i]}, y_});
    }
  }

  void compute(const Api& api, abi::KernelContext* context) const {
    std::vector<Tensor> x;
    for (size_t i = 0; i < Count; i++) x.push_back(api.input(context, kFirst + i));
    Dims dims = x[0].dims;
    const size_t axis = axis_of(axis_, dims.size(), "x_0");
    for (size_t i = 1; i < Count; i++) {
      Dims other = x[i].dims;
      if (other.size() == dims.size()) other[axis] = x[0].dims[axis];
      if (other != x[0].dims)
        throw Error("x_0 and x_" + std::to_string(i) + " have shapes " + shape_text(x[0].dims) + " and " +
                    shape_text(x[i].dims) + ", but may differ along axis " + std::to_string(axis) + " only");
      dims[axis] += x[i].dims[axis];
    }
    void* const y = api.output(context, 0, dims);
    if (is_empty(dims)) return;

    // y consists of rows of `row` values, with one piece from each input.
    const int64_t rows = product(dims, 0, axis), row = product(dims, axis, dims.size());
    int64_t sizes[Count];
    for (size_t i = 0; i < Count; i++) sizes[i] = product(x[i].dims, axis, dims.size());
    in_parts(api, context, rows * row, rows * row, 256, [&](int64_t begin, int64_t end) {
      for (int64_t at = begin; at < end;) {
        const int64_t r = at / row;
        int64_t start = r * row;
        for (size_t i = 0; i < Count && at < end; start += sizes[i++]) {
          const int64_t stop = std::min(end, start + sizes[i]);
          if (at >= stop) continue;
          const int64_t from = r * sizes[i] + at - start;
          parts_[i].run(static_cast<const uint8_t*>(x[i].data) + from * size_of(types_[i]),
                        static_cast<uint8_t*>(y) + at * size_of(y_.type), stop - at);
          at = stop;
        }
      }
    });
  }

  static void infer(const Inference& node) {
    TensorType y = node.input("x_0");
    y.element = inferred_y_type(node);
    if (!y.dims.empty()) {
      const size_t axis = axis_of(node.integer("axis"), y.dims.size(), "x_0");
      y.symbols[axis] = "";
      for (size_t i = 1; i < Count; i++) {
        const TensorType x = node.input(("x_" + std::to_string(i)).c_str());
        const auto known_size = [&](const TensorType& t) { return t.dims[axis] >= 0 && t.dims[axis] <= kMostSize; };
        const bool known = x.dims.size() == y.dims.size() && known_size(x) && known_size(y);
        y.dims[axis] = known ? y.dims[axis] + x.dims[axis] : -1;
      }
    }
    node.output(y);
  }

 private:
  static constexpr size_t kFirst = 2;  // the first of the tensors, after multiplier and shift

  int64_t axis_;
  OutputRange y_;
  std::vector<IntType> types_;
  std::vector<Sum> parts_;
};

ONNXQ_OPERATOR(Concat2, Concat<2>);
ONNXQ_OPERATOR(Concat3, Concat<3>);
ONNXQ_OPERATOR(Concat4, Concat<4>);
ONNXQ_OPERATOR(Concat5, Concat<5>);
ONNXQ_OPERATOR(Concat6, Concat<6>);
ONNXQ_OPERATOR(Concat7, Concat<7>);
ONNXQ_OPERATOR(Concat8, Concat<8>);

}  // namespace
}  // namespace onnxq
