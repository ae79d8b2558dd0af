// vpermi2b looks up 64 bytes in 128 entries at once: two lookups, and bit 7 chooses between them. A table of larger
// values is looked up byte by byte; vpsadbw adds each plane's bytes up.
#include <immintrin.h>

#include "cpu/elementwise/tables.hpp"

namespace onnxq {
namespace {

struct ByteTable {
  __m512i t0, t1, t2, t3;

  explicit ByteTable(const uint8_t* table)
      : t0(_mm512_loadu_si512(table)),
        t1(_mm512_loadu_si512(table + 64)),
        t2(_mm512_loadu_si512(table + 128)),
        t3(_mm512_loadu_si512(table + 192)) {}
  __m512i at(__m512i index) const {
    const __m512i low = _mm512_permutex2var_epi8(t0, index, t1), high = _mm512_permutex2var_epi8(t2, index, t3);
    return _mm512_mask_blend_epi8(_mm512_movepi8_mask(index), low, high);
  }
};

__mmask64 bytes_left(int64_t n) { return n >= 64 ? ~__mmask64{0} : (__mmask64{1} << n) - 1; }

}  // namespace

void lookup_vbmi(const uint8_t* table, const uint8_t* x, uint8_t* y, int64_t n) {
  const ByteTable bytes(table);
  for (int64_t i = 0; i < n; i += 64) {
    const __mmask64 mask = bytes_left(n - i);
    _mm512_mask_storeu_epi8(y + i, mask, bytes.at(_mm512_maskz_loadu_epi8(mask, x + i)));
  }
}

int64_t table_sum_vbmi(const ValueTable& table, uint8_t from, const uint8_t* x, int64_t n) {
  const ByteTable plane0(table.planes[0]), plane1(table.planes[1]), plane2(table.planes[2]);
  const __m512i zero = _mm512_setzero_si512(), start = _mm512_set1_epi8(static_cast<char>(from));
  __m512i sum0 = zero, sum1 = zero, sum2 = zero;
  for (int64_t i = 0; i < n; i += 64) {
    const __mmask64 mask = bytes_left(n - i);
    const __m512i index = _mm512_sub_epi8(start, _mm512_maskz_loadu_epi8(mask, x + i));
    const auto sum_of = [&](const ByteTable& plane) {
      return _mm512_sad_epu8(_mm512_maskz_mov_epi8(mask, plane.at(index)), zero);
    };
    sum0 = _mm512_add_epi64(sum0, sum_of(plane0));
    sum1 = _mm512_add_epi64(sum1, sum_of(plane1));
    sum2 = _mm512_add_epi64(sum2, sum_of(plane2));
  }
  sum1 = _mm512_slli_epi64(sum1, 8);
  sum2 = _mm512_slli_epi64(sum2, 16);
  return _mm512_reduce_add_epi64(_mm512_add_epi64(sum0, _mm512_add_epi64(sum1, sum2)));
}

}  // namespace onnxq
