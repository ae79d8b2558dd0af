// com.onnxq:ChannelsLast, version 1. Its page is docs/operators/ChannelsLast.md.
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "cpu/elementwise/elementwise.hpp"
#include "cpu/tiers/tier.hpp"
#include "ort/operator.hpp"
#include "ort/output.hpp"
#include "ort/parts.hpp"
#include "ort/shapes.hpp"

namespace onnxq {
namespace {

class ChannelsLast {
 public:
  explicit ChannelsLast(const Node& node) : kernels_(chosen_tier().elementwise()) {
    int_type_8bit(node.element("x"), "x");
  }

  void compute(const Api& api, abi::KernelContext* context) const {
    const Tensor x = api.input(context, 0);
    if (x.dims.size() < 3) throw Error("x must have at least 3 dimensions, its shape is " + shape_text(x.dims));
    Dims dims = x.dims;
    std::rotate(dims.begin() + 1, dims.begin() + 2, dims.end());
    auto* const y = static_cast<uint8_t*>(api.output(context, 0, dims));
    if (is_empty(dims)) return;

    const int64_t channels = x.dims[1], places = product(x.dims, 2, x.dims.size());
    const int64_t image = channels * places, count = x.dims[0] * places;
    in_parts(api, context, count, count * channels / kBytesPerNanosecond, 64, [&](int64_t begin, int64_t end) {
      for (int64_t at = begin; at < end;) {
        const int64_t first = at % places, n = std::min(end - at, places - first);
        const uint8_t* const from = x.as<uint8_t>() + at / places * image + first;
        if (channels == 1)
          std::memcpy(y + at, from, static_cast<size_t>(n));
        else
          kernels_.channels_last(from, places, channels, y + at * channels, n);
        at += n;
      }
    });
  }

  static void infer(const Inference& node) {
    TensorType y = node.input("x");
    if (y.dims.size() > 2) {
      std::rotate(y.dims.begin() + 1, y.dims.begin() + 2, y.dims.end());
      std::rotate(y.symbols.begin() + 1, y.symbols.begin() + 2, y.symbols.end());
    }
    node.output(y);
  }

 private:
  static constexpr int64_t kBytesPerNanosecond = 8;

  const Elementwise& kernels_;
};

ONNXQ_OPERATOR(ChannelsLast, ChannelsLast);

}  // namespace
}  // namespace onnxq
