// com.onnxq:Softmax, version 1. Its page is docs/operators/Softmax.md.
#include "cpu/operators/softmax.hpp"

#include <algorithm>
#include <cstdint>
#include <string>

#include "cpu/tiers/tier.hpp"
#include "ort/operator.hpp"
#include "ort/output.hpp"
#include "ort/parts.hpp"
#include "ort/shapes.hpp"

namespace onnxq {
namespace {

class SoftmaxOp {
 public:
  explicit SoftmaxOp(const Node& node)
      : axis_(node.integer("axis")), softmax_(chosen_tier().elementwise(), spec(node)), memory_(node.scratch()) {}

  void compute(const Api& api, abi::KernelContext* context) const {
    const Tensor x = api.input(context, 0);
    const size_t axis = axis_of(axis_, x.dims.size(), "x");
    const int64_t n = x.dims[axis], inner = product(x.dims, axis + 1, x.dims.size());
    if (n > kLongest) throw Error("x has rows of " + std::to_string(n) + " values, at most 2^25 are supported");
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
      throw Error("table must have values from 0 to 1048576, the first one positive");
    std::copy(table.begin(), table.end(), s.table.begin());
    s.multiplier = one_value(multipliers(node, "multiplier"), "multiplier");
    s.shift = one_value(shifts(node), "shift");
    if (s.shift > 16) throw Error("shift " + std::to_string(s.shift) + " is not in [1, 16]");
    s.range = output_range(node);
    type_ = s.range.type;
    return s;
  }

  int64_t axis_;
  IntType type_;  // set by spec()
  Softmax softmax_;
  ScratchSource memory_;
};

ONNXQ_OPERATOR(Softmax, SoftmaxOp);

}  // namespace
}  // namespace onnxq
