// Memory for packed weights, in large pages where the operating system has them: weights are read once a run from one end to
// the other, and with pages of 4 KB the walks through the page tables take 4 to 7 % of ResNet-50 (in a virtual machine).
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

  void* slab_ = nullptr;  // that it is a piece of; null: of the heap
  int8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace onnxq
