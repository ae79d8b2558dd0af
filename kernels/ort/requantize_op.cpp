// com.onnxq::Requantize, version 1: y = sat(((x * multiplier + 2^(shift-1)) >> shift) + zero_point)
//
// Inputs      x: int32, any shape
//             multiplier: int32, one value or one per channel, 0 to 2^31 - 1; an initializer
//             shift: int32, as many, 1 to 62; an initializer
//             zero_point: int8 or uint8, one value; an initializer. Its type is the type of y
// Output      y: the shape of x
// Attributes  axis (1): of the channels, negative from the end; ignored when multiplier has one value
//             qmin, qmax (the type's range): y saturates to [qmin, qmax], which also carries a fused ReLU or Clip
#include <cstdint>
#include <limits>
#include <string>

#include "cpu/requantize.hpp"
#include "ort/operator.hpp"
#include "ort/operators.hpp"

namespace onnxq {
namespace {

constexpr int32_t kMaxShift = 62;

template <class T>
constexpr int element() {
  return std::numeric_limits<T>::is_signed ? abi::kInt8 : abi::kUint8;
}

template <class T>
class Requantize {
 public:
  Requantize(const Api& api, const abi::KernelInfo* info) : axis_(api.attribute(info, "axis", 1)) {
    using Limits = std::numeric_limits<T>;
    const auto multiplier = api.constant<int32_t>(info, 1, "multiplier");
    const auto shift = api.constant<int32_t>(info, 2, "shift");
    const auto zero_point = api.constant<T>(info, 3, "zero_point");
    const int64_t qmin = api.attribute(info, "qmin", Limits::min());
    const int64_t qmax = api.attribute(info, "qmax", Limits::max());

    if (multiplier.size == 0 || multiplier.dims.size() > 1) throw Error("multiplier must be one value or a vector");
    if (shift.size != multiplier.size) throw Error("shift must have as many values as multiplier");
    if (zero_point.size != 1) throw Error("zero_point must be one value");
    if (qmin < Limits::min() || qmax > Limits::max() || qmin > qmax)
      throw Error("[qmin, qmax] = [" + std::to_string(qmin) + ", " + std::to_string(qmax) +
                  "] is no range of y's type");
    for (size_t i = 0; i < multiplier.size; i++) {
      if (multiplier.data[i] < 0) throw Error("multiplier " + std::to_string(multiplier.data[i]) + " is negative");
      if (shift.data[i] < 1 || shift.data[i] > kMaxShift)
        throw Error("shift " + std::to_string(shift.data[i]) + " is not in 1 to " + std::to_string(kMaxShift));
    }
    multiplier_.assign(multiplier.data, multiplier.data + multiplier.size);
    shift_.assign(shift.data, shift.data + shift.size);
    zero_point_ = *zero_point.data;
    qmin_ = static_cast<int32_t>(qmin);
    qmax_ = static_cast<int32_t>(qmax);
  }

  void compute(const Api& api, abi::KernelContext* context) const {
    const auto x = api.input<int32_t>(context, 0);
    T* y = api.output<T>(context, 0, x.dims);
    const Rescale rescale{multiplier_.data(), shift_.data(), zero_point_, qmin_, qmax_};
    if (multiplier_.size() == 1) return requantize_reference(x.data, y, 1, 1, x.size, rescale);

    const auto rank = static_cast<int64_t>(x.dims.size());
    const int64_t axis = axis_ < 0 ? axis_ + rank : axis_;
    if (axis < 0 || axis >= rank)
      throw Error("Requantize: axis " + std::to_string(axis_) + " of x, which has rank " + std::to_string(rank));
    size_t outer = 1, inner = 1;
    for (int64_t i = 0; i < axis; i++) outer *= size(x, i);
    for (int64_t i = axis + 1; i < rank; i++) inner *= size(x, i);
    if (size(x, axis) != multiplier_.size())
      throw Error("Requantize: x has " + std::to_string(size(x, axis)) + " channels, multiplier " +
                  std::to_string(multiplier_.size()) + " values");
    requantize_reference(x.data, y, outer, multiplier_.size(), inner, rescale);
  }

  static void infer(const Api& api, abi::ShapeContext* context) {
    // onnxruntime asks the first operator of a name on behalf of all its overloads: T says nothing here.
    TensorType y = api.inferred_input(context, 0);
    y.element = api.inferred_input(context, 3).element;
    api.infer_output(context, 0, y);
  }

 private:
  static size_t size(const Tensor<int32_t>& x, int64_t axis) {
    return static_cast<size_t>(x.dims[static_cast<size_t>(axis)]);
  }

  int64_t axis_;
  std::vector<int32_t> multiplier_, shift_;
  int32_t zero_point_ = 0, qmin_ = 0, qmax_ = 0;
};

template <class T>
const abi::CustomOp* requantize(const Api& api) {
  static const Operator<Requantize<T>> op(api, "Requantize", {abi::kInt32, abi::kInt32, abi::kInt32, element<T>()},
                                          {element<T>()});
  return &op;
}

}  // namespace

Operators requantize_operators(const Api& api) { return {requantize<int8_t>(api), requantize<uint8_t>(api)}; }

}  // namespace onnxq
