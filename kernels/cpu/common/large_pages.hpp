// Memory for packed weights, in large pages where the operating system has them: weights are read once per run from
// start to end, and with pages of 4 KB the page table walks take 4 to 7 % of ResNet-50's time (in a virtual machine).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace onnxq {

// A fixed number of bytes, aligned to a cache line.
class LargePages {
 public:
  LargePages() = default;
  explicit LargePages(const std::vector<int8_t>& values);
  LargePages(LargePages&& other) noexcept { swap(other); }
  LargePages& operator=(LargePages&& other) noexcept {
    swap(other);
    return *this;
  }
  ~LargePages();

  const int8_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  void swap(LargePages& other) noexcept;

  void* slab_ = nullptr;  // the slab it was cut from; null: allocated on the heap
  int8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace onnxq
