// com.onnxq:MaxPool, AveragePool and ReduceMean, version 1. Their pages are docs/operators/*.md.
#include "cpu/operators/pool.hpp"

#include <cstdint>
#include <string>
#include <vector>

#include "cpu/tiers/tier.hpp"
#include "ort/operator.hpp"
#include "ort/output.hpp"
#include "ort/parts.hpp"
#include "ort/shapes.hpp"

namespace onnxq {
namespace {

// Of a Node or an Inference.
template <class N>
Window window_of(const N& node) {
  const Dims kernel = node.integers("kernel_shape"), strides = node.integers("strides");
  const Dims pads = node.integers("pads"), dilations = node.integers("dilations");
  check_sizes(kernel, 2, 1, "kernel_shape");
  check_window(strides, pads, dilations);
  return {kernel[0], kernel[1], strides[0], strides[1], dilations[0], dilations[1], pads[0], pads[1], pads[2], pads[3]};
}

PoolImage image_of(const Window& window, const Tensor& x) {
  if (x.dims.size() != 4) throw Error("x must have 4 dimensions [N, H, W, C], its shape is " + shape_text(x.dims));
  check_padded(x.dims, {window.top, window.left, window.bottom, window.right});
  return {x.dims[1], x.dims[2], x.dims[3], window.out_h(x.dims[1]), window.out_w(x.dims[2])};
}

void infer_pool(const Inference& node, int element) {
  TensorType y = node.input("x");
  if (y.dims.empty()) {  // unknown rank: pools take no other
    y.dims.assign(4, -1);
    y.symbols.assign(4, "");
  }
  y.element = element;
  if (y.dims.size() == 4) {
    const Window window = window_of(node);
    check_dims(y.dims, "x");
    y.dims[1] = y.dims[1] < 0 ? -1 : window.out_h(y.dims[1]);
    y.dims[2] = y.dims[2] < 0 ? -1 : window.out_w(y.dims[2]);
    y.symbols[1] = y.symbols[2] = "";
  }
  node.output(y);
}

// The work of a pool, in values that take about a nanosecond. A vector holds many channels: several elements of a
// window take that long.
int64_t work_of(const Window& window, const PoolImage& image, int64_t rows) {
  const auto taps = static_cast<double>(std::min(window.kh, image.h) + std::min(window.kw, image.w));
  const double row = static_cast<double>(image.ow) * (static_cast<double>(image.c) * taps / 8 + 50);
  return static_cast<int64_t>(std::min(static_cast<double>(rows) * row, double{1} * kMostValues));
}

class MaxPool {
 public:
  explicit MaxPool(const Node& node)
      : kernels_(chosen_tier().elementwise()),
        window_(window_of(node)),
        type_(int_type(node.element("x"), "x")),
        memory_(node.scratch()) {}

  void compute(const Api& api, abi::KernelContext* context) const {
    const Tensor x = api.input(context, 0);
    const PoolImage image = image_of(window_, x);
    const Dims dims = {x.dims[0], image.oh, image.ow, image.c};
    void* const y = api.output(context, 0, dims);
    if (is_empty(dims)) return;
    const int64_t rows = x.dims[0] * image.oh;
    in_parts(api, context, rows, work_of(window_, image, rows), memory_, max_pool_scratch(image, type_),
             [&](int64_t begin, int64_t end, uint8_t* scratch) {
               max_pool(kernels_, window_, image, type_, x.data, y, begin, end, scratch);
             });
  }

  static void infer(const Inference& node) { infer_pool(node, node.input("x").element); }

 private:
  const Elementwise& kernels_;
  Window window_;
  IntType type_;
  ScratchSource memory_;
};

MeanSpec mean_of(const Node& node, std::vector<int32_t> multiplier, std::vector<int32_t> shift) {
  const IntType type = int_type(node.element("x"), "x");
  return {type, zero_point(node, "x_zero_point", type), std::move(multiplier), std::move(shift), output_range(node)};
}

// A multiplier or shift of one value, or of shape [OH, OW, 1].
struct ByPosition {
  std::vector<int32_t> values;
  Dims dims;  // OH and OW, or none
};

ByPosition by_position(const Node& node, const char* name) {
  const Tensor t = node.constant(name);
  if (t.element != abi::kInt32) throw Error(std::string(name) + " must be int32");
  const bool one = t.size == 1 && t.dims.size() <= 1;
  if (!one && (t.dims.size() != 3 || t.dims[2] != 1 || t.size == 0))
    throw Error(std::string(name) + " must have shape [1] or [OH, OW, 1], not " + shape_text(t.dims));
  return {{t.as<int32_t>(), t.as<int32_t>() + t.size}, one ? Dims{} : Dims{t.dims[0], t.dims[1]}};
}

class AveragePool {
 public:
  explicit AveragePool(const Node& node)
      : window_(window_of(node)), mean_(chosen_tier().elementwise(), spec(node)), memory_(node.scratch()) {}

  void compute(const Api& api, abi::KernelContext* context) const {
    const Tensor x = api.input(context, 0);
    const PoolImage image = image_of(window_, x);
    const Dims dims = {x.dims[0], image.oh, image.ow, image.c};
    if (!positions_.empty() && positions_ != Dims{image.oh, image.ow})
      throw Error("multiplier and shift have " + shape_text(positions_) + " positions, y has shape " +
                  shape_text(dims));
    void* const y = api.output(context, 0, dims);
    if (is_empty(dims)) return;
    const int64_t rows = x.dims[0] * image.oh;
    in_parts(api, context, rows, work_of(window_, image, rows), memory_, Mean::pool_scratch(image),
             [&](int64_t begin, int64_t end, uint8_t* scratch) {
               mean_.pool(window_, image, x.data, y, begin, end, scratch);
             });
  }

  static void infer(const Inference& node) { infer_pool(node, inferred_y_type(node)); }

 private:
  MeanSpec spec(const Node& node) {
    ByPosition multiplier = by_position(node, "multiplier"), shift = by_position(node, "shift");
    check_multiplier(multiplier.values, "multiplier");
    check_shift(shift.values);
    positions_ = multiplier.dims.empty() ? shift.dims : multiplier.dims;
    for (ByPosition* p : {&multiplier, &shift}) {
      if (p->dims.empty() && !positions_.empty())
        p->values.assign(static_cast<size_t>(positions_[0] * positions_[1]), p->values[0]);
      else if (p->dims != positions_)
        throw Error("multiplier and shift have shapes " + shape_text(multiplier.dims) + " and " +
                    shape_text(shift.dims));
    }
    return mean_of(node, std::move(multiplier.values), std::move(shift.values));
  }

  Dims positions_;  // set by spec()
  Window window_;
  Mean mean_;
  ScratchSource memory_;
};

class ReduceMean {
 public:
  explicit ReduceMean(const Node& node)
      : axes_(node.integers("axes")),
        keep_(kept(node.integer("keepdims"))),
        mean_(chosen_tier().elementwise(), mean_of(node, {one_value(multipliers(node, "multiplier"), "multiplier")},
                                                   {one_value(shifts(node), "shift")})) {
    check_axes(axes_);
  }

  void compute(const Api& api, abi::KernelContext* context) const {
    const Tensor x = api.input(context, 0);
    const auto first = static_cast<size_t>(axes_.front()), last = static_cast<size_t>(axes_.back()) + 1;
    if (last > x.dims.size())
      throw Error("axis " + std::to_string(last - 1) + " is out of range for x of rank " +
                  std::to_string(x.dims.size()));
    Dims dims;
    for (size_t i = 0; i < x.dims.size(); i++)
      if (i < first || i >= last)
        dims.push_back(x.dims[i]);
      else if (keep_)
        dims.push_back(1);
    void* const y = api.output(context, 0, dims);
    const int64_t outer = product(x.dims, 0, first), count = product(x.dims, first, last);
    const int64_t inner = product(x.dims, last, x.dims.size());
    in_parts(api, context, outer * inner, bounded_product(outer * inner, count / 8 + 1), inner > 1 ? 64 : 1,
             [&](int64_t begin, int64_t end) { mean_.reduce(x.data, count, inner, y, begin, end); });
  }

  static void infer(const Inference& node) {
    const TensorType x = node.input("x");
    const Dims axes = node.integers("axes");
    const bool keep = kept(node.integer("keepdims"));
    check_axes(axes);
    TensorType y{inferred_y_type(node), {}, {}};
    for (size_t i = 0; i < x.dims.size(); i++) {
      const bool goes = static_cast<int64_t>(i) >= axes.front() && static_cast<int64_t>(i) <= axes.back();
      if (goes && !keep) continue;
      y.dims.push_back(goes ? 1 : x.dims[i]);
      y.symbols.push_back(goes ? "" : x.symbols[i]);
    }
    node.output(y);
  }

 private:
  static bool kept(int64_t keepdims) {
    if (keepdims != 0 && keepdims != 1) throw Error("keepdims must be 0 or 1, not " + std::to_string(keepdims));
    return keepdims == 1;
  }

  static void check_axes(const Dims& axes) {
    bool good = !axes.empty() && axes[0] >= 0 && axes.back() <= kMostSize;
    for (size_t i = 1; i < axes.size(); i++) good = good && axes[i] == axes[0] + static_cast<int64_t>(i);
    if (!good) throw Error("axes must be consecutive and not negative, they are " + shape_text(axes));
  }

  Dims axes_;
  bool keep_;
  Mean mean_;
};

ONNXQ_OPERATOR(MaxPool, MaxPool);
ONNXQ_OPERATOR(AveragePool, AveragePool);
ONNXQ_OPERATOR(ReduceMean, ReduceMean);

}  // namespace
}  // namespace onnxq
