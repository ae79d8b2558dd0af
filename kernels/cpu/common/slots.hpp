// Pieces of memory that parts of a run take and give back: one thread uses the same ones again and again, so that they
// stay in its cache.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace onnxq {

// Up to 64 numbers; the lowest that is free is taken. Where all are, `take` waits.
class Slots {
 public:
  static constexpr size_t kMost = 64;

  explicit Slots(size_t count) : free_(count >= kMost ? ~uint64_t{0} : (uint64_t{1} << count) - 1) {}
  size_t take() {
    uint64_t free = free_.load(std::memory_order_relaxed);
    while (!free || !free_.compare_exchange_weak(free, free & (free - 1), std::memory_order_acquire))
      if (!free) free = free_.load(std::memory_order_relaxed);
    size_t slot = 0;
    while (!(free >> slot & 1)) slot++;
    return slot;
  }
  void give_back(size_t slot) { free_.fetch_or(uint64_t{1} << slot, std::memory_order_release); }

 private:
  std::atomic<uint64_t> free_;
};

}  // namespace onnxq
