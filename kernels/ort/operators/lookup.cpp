// com.onnxq:LookupTable, version 1. Its page is docs/operators/LookupTable.md.
#include <array>
#include <cstdint>

#include "cpu/elementwise/elementwise.hpp"
#include "cpu/tiers/tier.hpp"
#include "ort/operator.hpp"
#include "ort/output.hpp"
#include "ort/parts.hpp"

namespace onnxq {
namespace {

class LookupTable {
 public:
  explicit LookupTable(const Node& node) : kernels_(chosen_tier().elementwise()) {
    const bool is_signed = int_type_8bit(node.element("x"), "x") == IntType::S8;
    const Tensor table = node.constant("table");
    int_type_8bit(table.element, "table");
    if (table.dims.size() != 1 || table.size != table_.size()) throw Error("table must be a vector of 256 values");
    // Entry i of the input is for x = type_min + i, here for the byte of x.
    for (size_t i = 0; i < table_.size(); i++) table_[is_signed ? i ^ 128 : i] = table.as<uint8_t>()[i];
  }

  void compute(const Api& api, abi::KernelContext* context) const {
    const Tensor x = api.input(context, 0);
    auto* const y = static_cast<uint8_t*>(api.output(context, 0, x.dims));
    const auto size = static_cast<int64_t>(x.size);
    in_parts(api, context, size, size, 256, [&](int64_t begin, int64_t end) {
      kernels_.lookup(table_.data(), x.as<uint8_t>() + begin, y + begin, end - begin);
    });
  }

  static void infer(const Inference& node) {
    TensorType y = node.input("x");
    y.element = node.input("table").element;
    node.output(y);
  }

 private:
  const Elementwise& kernels_;
  std::array<uint8_t, 256> table_{};
};

ONNXQ_OPERATOR(LookupTable, LookupTable);

}  // namespace
}  // namespace onnxq
