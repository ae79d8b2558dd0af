// com.onnxq:Concat2 to Concat8, version 1. Their pages are docs/operators/*.md.
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

template <size_t Count>
class Concat {
 public:
  Concat(const Api& api, const abi::KernelInfo* info)
      : axis_(api.attribute(info, "axis")), y_(output_range(api, info)) {
    const auto multiplier = multipliers(api, info, 0, "multiplier"), shift = shifts(api, info, 1);
    const auto zero_points = api.attribute(info, "zero_points", Dims{});
    if (multiplier.size() != Count || shift.size() != Count || zero_points.size() != Count)
      throw Error("multiplier, shift and zero_points must have " + std::to_string(Count) + " values, they have " +
                  std::to_string(multiplier.size()) + ", " + std::to_string(shift.size()) + " and " +
                  std::to_string(zero_points.size()));
    for (size_t i = 0; i < Count; i++) {
      const std::string name = "x_" + std::to_string(i);
      const IntType type = int_type(api.input_element(info, kFirst + i), name.c_str());
      const int32_t z = zero_point(zero_points[i], "zero_points of " + name, type);
      types_.push_back(type);
      parts_.emplace_back(chosen_elementwise(), SumSpec{{{type, z, {multiplier[i]}}}, {shift[i]}, y_});
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
        throw Error("x_0 and x_" + std::to_string(i) + " have the shapes " + shape_text(x[0].dims) + " and " +
                    shape_text(x[i].dims) + ", they may differ along axis " + std::to_string(axis) + " only");
      dims[axis] += x[i].dims[axis];
    }
    void* const y = api.output(context, 0, dims);
    if (is_empty(dims)) return;

    // y is rows of `row` values, one piece from each input.
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

  static void infer(const Api& api, abi::ShapeContext* context) {
    TensorType y = api.inferred_input(context, kFirst);
    y.element = inferred_y_type(api, context);
    if (!y.dims.empty()) {
      const auto attribute = api.inferred_attribute(context, "axis", {});
      if (attribute.size() != 1) throw Error("attribute axis must be there, an integer");
      const size_t axis = axis_of(attribute[0], y.dims.size(), "x_0");
      y.symbols[axis] = "";
      for (size_t i = 1; i < Count; i++) {
        const TensorType x = api.inferred_input(context, kFirst + i);
        const bool known = x.dims.size() == y.dims.size() && x.dims[axis] >= 0 && y.dims[axis] >= 0;
        y.dims[axis] = known ? y.dims[axis] + x.dims[axis] : -1;
      }
    }
    api.infer_output(context, 0, y);
  }

 private:
  static constexpr size_t kFirst = 2;  // the first of the tensors, behind multiplier and shift

  int64_t axis_;
  OutputRange y_;
  std::vector<IntType> types_;
  std::vector<Sum> parts_;
};

}  // namespace

Operators concat_operators(const Api& api) {
  return join({operators<Concat<2>>(api, "Concat2", 4), operators<Concat<3>>(api, "Concat3", 5),
               operators<Concat<4>>(api, "Concat4", 6), operators<Concat<5>>(api, "Concat5", 7),
               operators<Concat<6>>(api, "Concat6", 8), operators<Concat<7>>(api, "Concat7", 9),
               operators<Concat<8>>(api, "Concat8", 10)});
}

}  // namespace onnxq
