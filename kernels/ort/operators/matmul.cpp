// com.onnxq:MatMul, version 1: the product of two activations. Its page is docs/operators/MatMul.md.
#include "cpu/operators/matmul.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "cpu/tiers/tier.hpp"
#include "ort/operator.hpp"
#include "ort/output.hpp"
#include "ort/parts.hpp"
#include "ort/shapes.hpp"

namespace onnxq {
namespace {

constexpr int64_t kMacsPerUnit = 100;  // multiply-adds per nanosecond, about

class MatMulOp {
 public:
  explicit MatMulOp(const Node& node) : matmul_(chosen_tier(), spec(node)), memory_(node.scratch()) {}

  void compute(const Api& api, abi::KernelContext* context) const {
    const Tensor a = api.input(context, 0), b = api.input(context, 1);
    if (a.dims.size() < 2 || b.dims.size() < 2)
      throw Error("a and b must have at least 2 dimensions, their shapes are " + shape_text(a.dims) + " and " +
                  shape_text(b.dims));
    const Dims a_stack(a.dims.begin(), a.dims.end() - 2), b_stack(b.dims.begin(), b.dims.end() - 2);
    const MatMul::Size size{a.dims.end()[-2], a.dims.end()[-1], b.dims.end()[-1], matmul_.panel_width()};
    if (b.dims.end()[-2] != size.k)
      throw Error("a has rows of " + std::to_string(size.k) + " values, b has " + std::to_string(b.dims.end()[-2]) +
                  " rows: their shapes are " + shape_text(a.dims) + " and " + shape_text(b.dims));
    const Dims stack = broadcast_or_throw(a_stack, b_stack);
    Dims dims = stack;
    dims.push_back(size.m);
    dims.push_back(size.n);
    auto* const y = static_cast<uint8_t*>(api.output(context, 0, dims));
    if (is_empty(dims)) return;
    check_sums(a, b, size.k);

    // Pack every b once, then compute the rows of every product.
    const int64_t stack_b = product(b_stack, 0, b_stack.size()), count = product(stack, 0, stack.size());
    const size_t packed_bytes = size.packed_bytes();
    const Scratch packed = memory_.take(packed_bytes * static_cast<size_t>(stack_b));
    in_parts(api, context, stack_b * size.panels(), stack_b * size.k * size.n, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        const int64_t which = i / size.panels(), panel = i % size.panels();
        matmul_.pack(size, b.as<uint8_t>() + which * size.k * size.n,
                     packed.data() + static_cast<size_t>(which) * packed_bytes, panel, panel + 1);
      }
    });

    const Walk walk(stack, {broadcast_strides(a_stack, stack), broadcast_strides(b_stack, stack)});
    const int64_t rows = count * size.m, work = rows * size.n * (size.k + 24) / kMacsPerUnit;
    const int64_t most = std::min((rows + part_count(rows, work) - 1) / part_count(rows, work), size.m);
    in_parts(api, context, rows, work, memory_, size.scratch_bytes(most),
             [&](int64_t begin, int64_t end, uint8_t* scratch) {
               for (int64_t row = begin; row < end;) {
                 const int64_t which = row / size.m, first = row % size.m, last = std::min(size.m, first + end - row);
                 walk.each(which, which + 1, [&](int64_t, const int64_t* at, int64_t) {
                   matmul_.multiply(size, a.as<uint8_t>() + at[0] * size.m * size.k,
                                    packed.data() + static_cast<size_t>(at[1]) * packed_bytes,
                                    y + which * size.m * size.n * size_of(type_), first, last, scratch);
                 });
                 row += last - first;
               }
             });
  }

  static void infer(const Inference& node) {
    TensorType a = node.input("a"), b = node.input("b");
    TensorType y{0, {}, {}};
    if (a.dims.size() >= 2 && b.dims.size() >= 2) {
      const int64_t rows = a.dims.end()[-2], columns = b.dims.end()[-1];
      const char *const row_symbol = a.symbols.end()[-2], *const column_symbol = b.symbols.end()[-1];
      for (TensorType* t : {&a, &b}) {
        t->dims.resize(t->dims.size() - 2);
        t->symbols.resize(t->dims.size());
      }
      y = inferred_broadcast(a, b);
      y.dims.insert(y.dims.end(), {rows, columns});
      y.symbols.insert(y.symbols.end(), {row_symbol, column_symbol});
    }
    y.element = inferred_y_type(node);
    node.output(y);
  }

 private:
  MatMulSpec spec(const Node& node) {
    MatMulSpec s{};
    s.a_type = int_type_8bit(node.element("a"), "a");
    s.b_type = int_type_8bit(node.element("b"), "b");
    s.a_zero_point = zero_point(node, "a_zero_point", s.a_type);
    s.b_zero_point = zero_point(node, "b_zero_point", s.b_type);
    s.multiplier = one_value(multipliers(node, "multiplier"), "multiplier");
    s.shift = one_value(shifts(node), "shift");
    s.range = output_range(node);
    type_ = s.range.type;
    a_ = {s.a_type, s.a_zero_point};
    b_ = {s.b_type, s.b_zero_point};
    return s;
  }

  // Lengths that were unknown when the model was lowered are known now. Throws Error when a sum could overflow.
  void check_sums(const Tensor& a, const Tensor& b, int64_t k) const {
    if (k <= kLargestSum / (255 * 255)) return;
    const int64_t reach_a = reach_of(a, a_), reach_b = reach_of(b, b_);
    if (reach_a && reach_b && k > kLargestSum / (reach_a * reach_b))
      throw Error("sums of " + std::to_string(k) + " products could overflow int32");
  }

  struct Factor {
    IntType type;
    int32_t zero_point;
  };

  // The largest |value - zero point|.
  static int64_t reach_of(const Tensor& values, const Factor& factor) {
    const auto reach = [&](auto* data) {
      const auto [least, most] = std::minmax_element(data, data + values.size);
      return std::max<int64_t>(std::abs(*most - factor.zero_point), std::abs(*least - factor.zero_point));
    };
    return factor.type == IntType::S8 ? reach(values.as<int8_t>()) : reach(values.as<uint8_t>());
  }

  static constexpr int64_t kLargestSum = INT32_MAX;

  IntType type_;  // set by spec()
  Factor a_, b_;  // set by spec()
  MatMul matmul_;
  ScratchSource memory_;
};

ONNXQ_OPERATOR(MatMul, MatMulOp);

}  // namespace
}  // namespace onnxq
