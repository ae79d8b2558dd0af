// Typed calls into the table of onnxruntime's functions. A failing call throws Error; guard() turns exceptions back
// into a Status at the border, which no exception may cross.
#pragma once

#include <cstdint>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include "ort/abi.hpp"

namespace onnxq {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// What is known of a tensor while shapes are inferred.
struct TensorType {
  int element;
  std::vector<int64_t> dims;         // -1 where unknown
  std::vector<const char*> symbols;  // "" where a dimension has no name
};

template <class T>
struct Tensor {
  const T* data;
  std::vector<int64_t> dims;
  size_t size;
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

  // The value of an integer attribute, or `fallback` when the node has none of that name.
  int64_t attribute(const abi::KernelInfo* info, const char* name, int64_t fallback) const;

  // An input that is known when the session is made. Throws when it is not.
  template <class T>
  Tensor<T> constant(const abi::KernelInfo* info, size_t index, const char* name) const {
    return tensor<T>(constant_value(info, index, name));
  }

  template <class T>
  Tensor<T> input(const abi::KernelContext* context, size_t index) const {
    const abi::Value* value = nullptr;
    call(abi::Slot::KernelContext_GetInput, context, index, &value);
    return tensor<T>(value);
  }

  template <class T>
  T* output(abi::KernelContext* context, size_t index, const std::vector<int64_t>& dims) const {
    abi::Value* value = nullptr;
    call(abi::Slot::KernelContext_GetOutput, context, index, dims.data(), dims.size(), &value);
    return static_cast<T*>(data(value));
  }

  TensorType inferred_input(const abi::ShapeContext* context, size_t index) const;
  void infer_output(abi::ShapeContext* context, size_t index, const TensorType& type) const;
  void release(abi::TensorInfo* info) const;

 private:
  template <class R, class... P>
  auto function(abi::Slot slot) const -> R (*)(P...) {
    return reinterpret_cast<R (*)(P...)>(table_[static_cast<size_t>(slot)]);
  }

  template <class T>
  Tensor<T> tensor(const abi::Value* value) const {
    Tensor<T> t{static_cast<const T*>(data(const_cast<abi::Value*>(value))), dims(value), 1};
    for (const int64_t d : t.dims) t.size *= static_cast<size_t>(d);
    return t;
  }

  void* data(abi::Value* value) const;
  std::vector<int64_t> dims(const abi::Value* value) const;
  const abi::Value* constant_value(const abi::KernelInfo* info, size_t index, const char* name) const;

  abi::Table table_;
};

}  // namespace onnxq
