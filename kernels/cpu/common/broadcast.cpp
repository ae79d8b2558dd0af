#include "cpu/common/broadcast.hpp"

#include <algorithm>
#include <stdexcept>

namespace onnxq {

Dims broadcast(const Dims& a, const Dims& b) {
  Dims y(std::max(a.size(), b.size()));
  for (size_t i = 1; i <= y.size(); i++) {
    const int64_t p = i <= a.size() ? a[a.size() - i] : 1, q = i <= b.size() ? b[b.size() - i] : 1;
    if (p != q && p != 1 && q != 1) throw std::invalid_argument("shapes do not broadcast");
    y[y.size() - i] = p == 1 ? q : p;
  }
  return y;
}

Dims broadcast_strides(const Dims& operand, const Dims& y) {
  Dims strides(y.size(), 0);
  int64_t stride = 1;
  for (size_t i = 1; i <= operand.size(); i++) {
    const int64_t size = operand[operand.size() - i];
    if (size != 1) strides[y.size() - i] = stride;
    stride *= size;
  }
  return strides;
}

Walk::Walk(const Dims& y, const std::vector<Dims>& strides) {
  std::vector<Axis> axes;  // innermost first, adjacent ones merged where every operand allows it
  for (size_t d = y.size(); d-- > 0;) {
    size_ *= y[d];
    if (y[d] == 1) continue;
    Axis axis{y[d], {}};
    for (size_t k = 0; k < strides.size(); k++) axis.stride[k] = strides[k].empty() ? 0 : strides[k][d];
    if (!axes.empty()) {
      Axis& last = axes.back();
      bool merges = true;
      for (int k = 0; k < kOperands; k++) merges = merges && axis.stride[k] == last.stride[k] * last.size;
      if (merges) {
        last.size *= axis.size;
        continue;
      }
    }
    axes.push_back(axis);
  }
  if (axes.empty() || size_ == 0) return;
  n_ = axes[0].size;
  std::copy_n(axes[0].stride, kOperands, inner_step_);
  outer_.assign(axes.rbegin(), axes.rend() - 1);
}

}  // namespace onnxq
