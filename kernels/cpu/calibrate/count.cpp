#include "cpu/calibrate/count.hpp"

#include <cstring>

namespace {

constexpr size_t kPages = 512;
constexpr uint32_t kPageSize = 1024;
constexpr int kPageShift = 23;    // float32 bits to page
constexpr int kBucketShift = 13;  // float32 bits to the count in it, modulo kPageSize

template <class T>
T load(const unsigned char* values, size_t i) {
  T value;
  std::memcpy(&value, values + i * sizeof(T), sizeof(T));
  return value;
}

uint32_t& bucket(uint32_t* page, uint32_t bits) { return page[(bits >> kBucketShift) & (kPageSize - 1)]; }

struct Extremes {
  float low, high;

  // One minss and one maxss, which cost nothing beside the scattered increments. NaN never gets here.
  void add(float x) {
    low = x < low ? x : low;
    high = x > high ? x : high;
  }
};

}  // namespace

size_t onnxq_count(const void* values, size_t n, uint32_t* const* pages, uint32_t step, float* extremes) {
  constexpr size_t kLanes = 4;  // separate extremes per lane: with a single one each value would wait for the previous
  const auto* in = static_cast<const unsigned char*>(values);
  uint32_t* const* even = pages;
  uint32_t* const* odd = pages + kPages;
  Extremes lanes[kLanes];
  for (Extremes& lane : lanes) lane = {extremes[0], extremes[1]};

  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const uint32_t a = load<uint32_t>(in, i), b = load<uint32_t>(in, i + 1);
    const uint32_t c = load<uint32_t>(in, i + 2), d = load<uint32_t>(in, i + 3);
    uint32_t* const page_a = even[a >> kPageShift];
    uint32_t* const page_b = odd[b >> kPageShift];
    uint32_t* const page_c = even[c >> kPageShift];
    uint32_t* const page_d = odd[d >> kPageShift];
    if (!page_a || !page_b || !page_c || !page_d) break;
    for (size_t lane = 0; lane < kLanes; lane++) lanes[lane].add(load<float>(in, i + lane));
    bucket(page_a, a) += step;
    bucket(page_b, b) += step;
    bucket(page_c, c) += step;
    bucket(page_d, d) += step;
  }
  for (; i < n; i++) {
    const uint32_t bits = load<uint32_t>(in, i);
    uint32_t* const page = (i % 2 ? odd : even)[bits >> kPageShift];
    if (!page) break;
    lanes[0].add(load<float>(in, i));
    bucket(page, bits) += step;
  }

  for (const Extremes& lane : lanes) {
    extremes[0] = lane.low < extremes[0] ? lane.low : extremes[0];
    extremes[1] = lane.high > extremes[1] ? lane.high : extremes[1];
  }
  return i;
}
