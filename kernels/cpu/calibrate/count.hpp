// Calibration statistics: float32 values counted into logarithmic buckets, which onnxq/calibrate/buckets.py defines.
#pragma once

#include <cstddef>
#include <cstdint>

#include "export.hpp"

// Adds `step` to the count of every value's bucket, modulo 2^32, and widens extremes[0], extremes[1] (the minimum and
// the maximum) to hold every value. Stops at the first value that has no page and returns its index; n if there is
// none.
//
// values: n float32, not necessarily aligned. pages: two lists of 512 pointers, by sign and exponent, to the 1024
// counts of a page (by the first 10 mantissa bits), or null. Values at even indices use the first list, those at odd
// indices the second; usually both point to the same page, but two pages keep repeated values (the zeros after a ReLU)
// from waiting for each other's store.
//
// NaN and infinity stop it when exponent 255 has no page. A call with step 2^32 − 1 and n = the index where the first
// one stopped undoes what that one counted.
ONNXQ_EXPORT size_t onnxq_count(const void* values, size_t n, uint32_t* const* pages, uint32_t step, float* extremes);
