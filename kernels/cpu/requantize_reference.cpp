#include "cpu/requantize.hpp"

namespace onnxq {

template <class T>
void requantize_reference(const int32_t* x, T* y, size_t outer, size_t channels, size_t inner, const Rescale& r) {
  for (size_t o = 0; o < outer; o++)
    for (size_t c = 0; c < channels; c++)
      for (size_t i = 0; i < inner; i++) *y++ = static_cast<T>(rescale(*x++, r, c));
}

template void requantize_reference(const int32_t*, int8_t*, size_t, size_t, size_t, const Rescale&);
template void requantize_reference(const int32_t*, uint8_t*, size_t, size_t, size_t, const Rescale&);

}  // namespace onnxq
