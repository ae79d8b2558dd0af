// Cutting work on many values into parts for the session's threads.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/common/sizes.hpp"
#include "ort/api.hpp"

namespace onnxq {

// About 20 µs of work on values that take a nanosecond each: less is not worth dispatching to a thread.
constexpr int64_t kPartWork = 20'000;
constexpr int64_t kMaxParts = 32;

inline int64_t part_count(int64_t units, int64_t work) {
  return std::max<int64_t>(1, std::min({units, work / kPartWork, kMaxParts}));
}

// body(begin, end) over 0 … units, on the session's threads. work: of all units, in values that take about a
// nanosecond. grain: parts begin at multiples of it.
template <class F>
void in_parts(const Api& api, const abi::KernelContext* context, int64_t units, int64_t work, int64_t grain,
              const F& body) {
  if (units <= 0) return;
  const int64_t grains = (units + grain - 1) / grain, parts = part_count(grains, work);
  api.parallel_for(context, static_cast<size_t>(parts), [&](size_t i) {
    const auto part = static_cast<int64_t>(i);
    body(grains * part / parts * grain, std::min(units, grains * (part + 1) / parts * grain));
  });
}

// The same with scratch memory for each part: body(begin, end, scratch).
template <class F>
void in_parts(const Api& api, const abi::KernelContext* context, int64_t units, int64_t work,
              const ScratchSource& memory, size_t scratch_bytes, const F& body) {
  const int64_t parts = part_count(units, work);
  const size_t each = aligned(scratch_bytes);
  const Scratch scratch = memory.take(each * static_cast<size_t>(parts));
  api.parallel_for(context, static_cast<size_t>(parts), [&](size_t i) {
    const auto part = static_cast<int64_t>(i);
    body(units * part / parts, units * (part + 1) / parts, scratch.data() + i * each);
  });
}

}  // namespace onnxq
