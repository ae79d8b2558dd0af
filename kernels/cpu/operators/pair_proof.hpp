// Whether vpmaddubsw is exact on packed weights, whatever the activations.
#pragma once

#include <cstddef>
#include <cstdint>

namespace onnxq {

// Whether 255 times two adjacent weights fit 16 bits, those of each sign alone and so with any activations: as all do
// that are in −64..64.
inline bool all_pairs_fit(const int8_t* packed, size_t bytes) {
  constexpr int kMost = INT16_MAX / 255;
  for (size_t i = 0; i + 1 < bytes; i += 2) {
    const int a = packed[i], b = packed[i + 1];
    const int positive = (a > 0 ? a : 0) + (b > 0 ? b : 0), negative = (a < 0 ? a : 0) + (b < 0 ? b : 0);
    if (positive > kMost || negative < -kMost) return false;
  }
  return true;
}

}  // namespace onnxq
