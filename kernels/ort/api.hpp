// Typed calls into the table of onnxruntime's functions. A failing call throws Error; guard() turns exceptions back
// into a Status at the boundary, which no exception may cross.
#pragma once

#include <cstdint>
#include <exception>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "ort/abi.hpp"

namespace onnxq {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// What is known about a tensor while shapes are inferred.
struct TensorType {
  int element;
  std::vector<int64_t> dims;         // -1 where unknown
  std::vector<const char*> symbols;  // "" where a dimension has no name
};

// A tensor of any type, owned by onnxruntime.
struct Tensor {
  int element;
  const void* data;
  std::vector<int64_t> dims;
  size_t size;

  template <class T>
  const T* as() const {
    return static_cast<const T*>(data);
  }
};

class Api {
 public:
  explicit Api(abi::Table table) : table_(table) {}

  // Calls a function that returns a Status.
  template <class... P>
  void call(abi::Slot slot, P... arguments) const {
    abi::Status* status = function<abi::Status*, P...>(slot)(arguments...);
    if (!status) return;
    const std::string message = function<const char*, const abi::Status*>(abi::Slot::GetErrorMessage)(status);
    function<void, abi::Status*>(abi::Slot::ReleaseStatus)(status);
    throw Error(message);
  }

  // Calls a function that returns nothing.
  template <class... P>
  void release(abi::Slot slot, P... arguments) const {
    function<void, P...>(slot)(arguments...);
  }

  abi::Status* status(abi::ErrorCode code, const char* message) const {
    return function<abi::Status*, int, const char*>(abi::Slot::CreateStatus)(code, message);
  }

  template <class F>
  abi::Status* guard(F&& body) const noexcept {
    try {
      body();
      return nullptr;
    } catch (const std::exception& error) {
      return status(abi::kFail, error.what());
    } catch (...) {
      return status(abi::kFail, "onnxq: unknown error");
    }
  }

  // While a kernel is made.

  // An integer attribute, or a list of integers; nothing when the node has none of that name. Throws when it has
  // a different type.
  std::optional<int64_t> integer(const abi::KernelInfo* info, const char* attribute) const;
  std::optional<std::vector<int64_t>> integers(const abi::KernelInfo* info, const char* attribute) const;
  // The element type of an input.
  int input_element(const abi::KernelInfo* info, size_t index) const;
  // An input that is known when the session is made. Throws when it is not.
  Tensor constant(const abi::KernelInfo* info, size_t index, const char* name) const;

  // While a kernel runs.

  Tensor input(const abi::KernelContext* context, size_t index) const;
  void* output(abi::KernelContext* context, size_t index, const std::vector<int64_t>& dims) const;

  // body(i) for every i < parts, on the session's own threads.
  template <class F>
  void parallel_for(const abi::KernelContext* context, size_t parts, const F& body) const {
    if (parts == 1) return body(size_t{0});
    // No exception may cross onnxruntime's thread pool: bodies are plain arithmetic on existing memory.
    void (*const part)(void*, size_t) = [](void* f, size_t i) { (*static_cast<const F*>(f))(i); };
    call(abi::Slot::KernelContext_ParallelFor, context, part, parts, parts,
         const_cast<void*>(static_cast<const void*>(&body)));
  }

  // While shapes are inferred.

  TensorType inferred_input(const abi::ShapeContext* context, size_t index) const;
  void infer_output(abi::ShapeContext* context, size_t index, const TensorType& type) const;
  // A list of integers, or one integer as a list of one; nothing when the node has none of that name.
  std::optional<std::vector<int64_t>> integers(const abi::ShapeContext* context, const char* attribute) const;

 private:
  template <class R, class... P>
  auto function(abi::Slot slot) const -> R (*)(P...) {
    return reinterpret_cast<R (*)(P...)>(table_[static_cast<size_t>(slot)]);
  }

  Tensor tensor(const abi::Value* value) const;

  abi::Table table_;
};

// Memory from onnxruntime's arena, 64-byte aligned, for the duration of one run.
class Scratch {
 public:
  Scratch(abi::Allocator* allocator, size_t bytes);
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch();
  uint8_t* data() const { return aligned_; }

 private:
  abi::Allocator* allocator_;
  void* memory_ = nullptr;
  uint8_t* aligned_ = nullptr;
};

// The session's allocator, held by a kernel for its lifetime.
class ScratchSource {
 public:
  ScratchSource(const Api& api, const abi::KernelInfo* info);
  ScratchSource(ScratchSource&& other) noexcept;
  ScratchSource(const ScratchSource&) = delete;
  ScratchSource& operator=(const ScratchSource&) = delete;
  ~ScratchSource();
  Scratch take(size_t bytes) const { return Scratch(allocator_, bytes); }

 private:
  Api api_;
  abi::Allocator* allocator_ = nullptr;
};

}  // namespace onnxq
