// Rows of an image beside each other, pixel by pixel. Included by amx.cpp only.
#pragma once

#include <immintrin.h>

#include "cpu/tiers/amx/row_rescaler.hpp"

namespace onnxq {
namespace {

// 64 bytes at a time: rows 0 and 1 in one register, 2 and 3 in another, up to 32 bytes of each.
void interleave_rows(const InterleavedRows& r) {
  const uint8_t* const* from = r.from;
  uint8_t* const to = r.to;
  const int rows = r.rows, pixel = r.pixel, together = rows * pixel, each = 64 / together;  // each: pixels of a vector
  const int64_t count = r.count;
  const __m512i places = _mm512_loadu_si512(r.places), mask = _mm512_set1_epi8(static_cast<char>(r.flip));
  // Rows that there are not are read as the first and never picked. Copies, which stores of bytes cannot alias.
  const uint8_t *const row0 = from[0], *const row1 = from[1];
  const uint8_t *const row2 = from[rows > 2 ? 2 : 0], *const row3 = from[rows > 3 ? 3 : 0];
  const auto interleaved = [&](__m256i a, __m256i b, __m256i c, __m256i d) __attribute__((always_inline)) {
    const __m512i first = _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
    const __m512i second = _mm512_inserti64x4(_mm512_castsi256_si512(c), d, 1);
    return _mm512_xor_si512(_mm512_permutex2var_epi8(first, places, second), mask);
  };
  int64_t x = 0;
  // Whole vectors, as long as reading 32 bytes and writing 64 stays inside; what is too much is overwritten.
  const int64_t whole = count - (128 / together > 64 / pixel ? 128 / together : 64 / pixel) - 1;
  const auto load = [](const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); };
  ptrdiff_t at = 0;
  uint8_t* end = to;
  for (; x < whole; x += each, at += each * pixel, end += each * together)
    _mm512_storeu_si512(end, interleaved(load(row0 + at), load(row1 + at), load(row2 + at), load(row3 + at)));
  for (; x < count; x += each, at += each * pixel, end += each * together) {
    const int n = count - x < each ? static_cast<int>(count - x) : each;
    const auto bytes = static_cast<__mmask32>(first_bytes(n * pixel));
    const auto some = [bytes](const uint8_t* p) { return _mm256_maskz_loadu_epi8(bytes, p); };
    _mm512_mask_storeu_epi8(end, first_bytes(n * together),
                            interleaved(some(row0 + at), some(row1 + at), some(row2 + at), some(row3 + at)));
  }
}

}  // namespace
}  // namespace onnxq
