// com.onnxq:Requantize, version 1. Its page is docs/operators/Requantize.md.
#include <cstdint>
#include <string>
#include <vector>

#include "cpu/rescale.hpp"
#include "ort/operator.hpp"
#include "ort/operators.hpp"
#include "ort/output.hpp"

namespace onnxq {
namespace {

class Requantize {
 public:
  Requantize(const Api& api, const abi::KernelInfo* info)
      : x_type_(int_type(api.input_element(info, 0), "x")),
        x_zero_point_(zero_point(api, info, "x_zero_point", x_type_)),
        axis_(api.attribute(info, "axis", -1)),
        range_(output_range(api, info)),
        multiplier_(multipliers(api, info, 1, "multiplier")),
        shift_(shifts(api, info, 2)) {}

  void compute(const Api& api, abi::KernelContext* context) const {
    const Tensor x = api.input(context, 0);
    void* const y = api.output(context, 0, x.dims);
    size_t channels = 1, inner = 1;
    if (multiplier_.size() > 1 || shift_.size() > 1) {
      const auto rank = static_cast<int64_t>(x.dims.size());
      const int64_t axis = axis_ < 0 ? axis_ + rank : axis_;
      if (axis < 0 || axis >= rank)
        throw Error("axis " + std::to_string(axis_) + " of x, which has rank " + std::to_string(rank));
      channels = static_cast<size_t>(x.dims[static_cast<size_t>(axis)]);
      for (int64_t i = axis + 1; i < rank; i++) inner *= static_cast<size_t>(x.dims[static_cast<size_t>(i)]);
    }
    const auto multiplier = per_channel(multiplier_, channels, "multiplier");
    const auto shift = per_channel(shift_, channels, "shift");
    int64_t i = 0;
    const auto size = static_cast<int64_t>(x.size);
    while (i < size)
      for (size_t c = 0; c < channels; c++)
        for (size_t k = 0; k < inner && i < size; k++, i++) {
          const int64_t term = int64_t{load(x.data, x_type_, i)} - x_zero_point_;
          store(y, range_.type, i, finish(term * multiplier[c], shift[c], range_));
        }
  }

  static void infer(const Api& api, abi::ShapeContext* context) {
    TensorType y = api.inferred_input(context, 0);
    y.element = inferred_y_type(api, context);
    api.infer_output(context, 0, y);
  }

 private:
  IntType x_type_;
  int32_t x_zero_point_;
  int64_t axis_;
  OutputRange range_;
  std::vector<int32_t> multiplier_, shift_;
};

}  // namespace

Operators requantize_operators(const Api& api) { return operators<Requantize>(api, "Requantize", 3); }

}  // namespace onnxq
