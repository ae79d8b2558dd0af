// Sums that are the result as they are, written row by row between tile products. Included by amx.cpp only.
#pragma once

#include "cpu/tiers/amx/row_rescaler.hpp"

namespace onnxq {
namespace {

// The interface of RowRescaler, for EpilogueBlock::identity. V: vectors of channels in a row.
template <int V>
class RowCopier {
 public:
  static constexpr int kVectors = V, kRows = 1, kBytes = sizeof(int32_t);

  ONNXQ_INLINE_MEMBER explicit RowCopier(const EpilogueBlock& e)
      : y_stride_(e.y_stride * static_cast<ptrdiff_t>(sizeof(int32_t))) {}
  ptrdiff_t y_stride() const { return y_stride_; }
  ptrdiff_t residual_stride() const { return 0; }

  ONNXQ_INLINE_MEMBER void open(const EpilogueBlock& e, int channel) {
    each<V>(ONNXQ_EACH { masks_[index.value] = mask16(e.n - channel - kVector * index.value); });
  }
  ONNXQ_INLINE_MEMBER void rows(const int32_t* acc, uint8_t* y, const uint8_t*, int) const {
    each<V>(ONNXQ_EACH {
      constexpr int at = kVector * index.value;
      _mm512_mask_storeu_epi32(reinterpret_cast<int32_t*>(y) + at, masks_[index.value], _mm512_load_si512(acc + at));
    });
  }

 private:
  const ptrdiff_t y_stride_;
  __mmask16 masks_[V];
};

}  // namespace
}  // namespace onnxq
