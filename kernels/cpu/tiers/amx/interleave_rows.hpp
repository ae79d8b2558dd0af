// Rows of an image beside each other, pixel by pixel. Included by amx.cpp only.
#pragma once

#include <immintrin.h>

#include "cpu/tiers/amx/row_rescaler.hpp"

namespace onnxq {
namespace {

// 64 bytes at a time: rows 0 and 1 in one register, 2 and 3 in another, up to 32 bytes of each.
void interleave_rows(const uint8_t* const* from, int rows, int pixel, int64_t count, uint8_t flip, uint8_t* to) {
  const int together = rows * pixel, each = 64 / together;  // pixels of a vector
  alignas(64) uint8_t index[64];
  for (int i = 0; i < 64; i++)
    index[i] = static_cast<uint8_t>(i % together / pixel * 32 + i / together * pixel + i % pixel);
  const __m512i places = _mm512_load_si512(index), mask = _mm512_set1_epi8(static_cast<char>(flip));
  const auto interleaved = [&](const __m256i* v) __attribute__((always_inline)) {
    const __m512i first = _mm512_inserti64x4(_mm512_castsi256_si512(v[0]), v[1], 1);
    const __m512i second = _mm512_inserti64x4(_mm512_castsi256_si512(v[2]), v[3], 1);
    return _mm512_xor_si512(_mm512_permutex2var_epi8(first, places, second), mask);
  };
  int64_t x = 0;
  // Whole vectors, as long as reading 32 bytes and writing 64 stays inside; what is too much is overwritten.
  for (; (count - x) * together >= 128 && (count - x) * pixel >= 64; x += each) {
    __m256i v[4];
    for (int r = 0; r < 4; r++)
      v[r] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from[r < rows ? r : 0] + x * pixel));
    _mm512_storeu_si512(to + x * together, interleaved(v));
  }
  for (; x < count; x += each) {
    const int n = count - x < each ? static_cast<int>(count - x) : each;
    const auto bytes = static_cast<__mmask32>(first_bytes(n * pixel));
    __m256i v[4];
    for (int r = 0; r < 4; r++)
      v[r] = r < rows ? _mm256_maskz_loadu_epi8(bytes, from[r] + x * pixel) : _mm256_setzero_si256();
    _mm512_mask_storeu_epi8(to + x * together, first_bytes(n * together), interleaved(v));
  }
}

}  // namespace
}  // namespace onnxq
