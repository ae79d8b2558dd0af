#include "cpu/common/large_pages.hpp"

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <new>
#include <utility>

#include "cpu/common/sizes.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace onnxq {

namespace {

constexpr size_t kPage = 2 << 20;
constexpr size_t kSlabBytes = 64 << 20;
constexpr size_t kLeast = 64 << 10;  // less comes from the heap: a small model takes no page of 2 MB

// Address space that pieces are cut from one after the other, released with the last of them. Pages become resident
// when they are first written: unused ones cost nothing.
struct Slab {
  int8_t* begin;
  size_t size, used, pieces;
};

std::mutex mutex;         // guards what follows
Slab* current = nullptr;  // the slab that the next piece is cut from

// Address space at a multiple of kPage, as large pages if possible; null when there is none.
int8_t* reserve(size_t size) {
#if defined(__linux__)
  void* const all =
      mmap(nullptr, size + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (all == MAP_FAILED) return nullptr;
  auto* const from = static_cast<int8_t*>(all);
  const size_t skip = (kPage - reinterpret_cast<uintptr_t>(from) % kPage) % kPage;
  if (skip) munmap(from, skip);
  if (skip < kPage) munmap(from + skip + size, kPage - skip);
  madvise(from + skip, size, MADV_HUGEPAGE);  // a hint: if it is ignored the pages are small
  return from + skip;
#else
  (void)size;
  return nullptr;
#endif
}

void release(int8_t* begin, size_t size) {
#if defined(__linux__)
  munmap(begin, size);
#else
  (void)begin, (void)size;
#endif
}

// A piece of the current slab, or of a new one; null when there is no address space.
int8_t* take(size_t bytes, void*& from) {
  const std::lock_guard<std::mutex> lock(mutex);
  if (!current || current->size - current->used < bytes) {
    const size_t size = (std::max(bytes, kSlabBytes) + kPage - 1) / kPage * kPage;
    int8_t* const begin = reserve(size);
    if (!begin) return nullptr;
    current = new Slab{begin, size, 0, 0};
  }
  int8_t* const piece = current->begin + current->used;
  current->used += bytes;
  current->pieces++;
  from = current;
  return piece;
}

void give_back(void* from) {
  const std::lock_guard<std::mutex> lock(mutex);
  auto* const slab = static_cast<Slab*>(from);
  if (--slab->pieces) return;
  if (slab == current) current = nullptr;
  release(slab->begin, slab->size);
  delete slab;
}

}  // namespace

LargePages::LargePages(const std::vector<int8_t>& values) : size_(values.size()) {
  const size_t bytes = aligned(size_);
  if (bytes >= kLeast) data_ = take(bytes, slab_);
  if (!data_) data_ = static_cast<int8_t*>(std::aligned_alloc(kLine, std::max(bytes, kLine)));
  if (!data_) throw std::bad_alloc();
  std::copy(values.begin(), values.end(), data_);
}

LargePages::~LargePages() {
  if (slab_)
    give_back(slab_);
  else
    std::free(data_);
}

void LargePages::swap(LargePages& other) noexcept {
  std::swap(slab_, other.slab_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
}

}  // namespace onnxq
