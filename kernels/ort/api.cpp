#include "ort/api.hpp"

namespace onnxq {

using abi::Slot;

namespace {

// Releases onnxruntime's description of a type when the scope ends.
class OwnedInfo {
 public:
  OwnedInfo(const Api& api, abi::TensorInfo* info) : api_(api), info_(info) {}
  OwnedInfo(const OwnedInfo&) = delete;
  OwnedInfo& operator=(const OwnedInfo&) = delete;
  ~OwnedInfo() { api_.release(info_); }

 private:
  const Api& api_;
  abi::TensorInfo* info_;
};

std::vector<int64_t> dims_of(const Api& api, const abi::TensorInfo* info) {
  size_t rank = 0;
  api.call(Slot::GetDimensionsCount, info, &rank);
  std::vector<int64_t> dims(rank);
  api.call(Slot::GetDimensions, info, dims.data(), rank);
  return dims;
}

}  // namespace

void Api::release(abi::TensorInfo* info) const {
  function<void, abi::TensorInfo*>(Slot::ReleaseTensorTypeAndShapeInfo)(info);
}

void* Api::data(abi::Value* value) const {
  void* data = nullptr;
  call(Slot::GetTensorMutableData, value, &data);
  return data;
}

std::vector<int64_t> Api::dims(const abi::Value* value) const {
  abi::TensorInfo* info = nullptr;
  call(Slot::GetTensorTypeAndShape, value, &info);
  const OwnedInfo owned(*this, info);
  return dims_of(*this, info);
}

int64_t Api::attribute(const abi::KernelInfo* info, const char* name, int64_t fallback) const {
  int64_t value = 0;
  try {
    call(Slot::KernelInfoGetAttribute_int64, info, name, &value);
  } catch (const Error& error) {
    // One error code serves "there is none" and "it is of another type"; only the text tells them apart.
    if (std::string(error.what()).find("match") != std::string::npos)
      throw Error(std::string("attribute ") + name + " must be an integer");
    return fallback;
  }
  return value;
}

const abi::Value* Api::constant_value(const abi::KernelInfo* info, size_t index, const char* name) const {
  int is_constant = 0;
  const abi::Value* value = nullptr;
  call(Slot::KernelInfoGetConstantInput_tensor, info, index, &is_constant, &value);
  if (!is_constant)
    throw Error(std::string("input ") + name + " must be an initializer, and not also an input of the graph");
  return value;
}

TensorType Api::inferred_input(const abi::ShapeContext* context, size_t index) const {
  abi::TensorInfo* owned_by_context = nullptr;
  call(Slot::ShapeInferContext_GetInputTypeShape, context, index, &owned_by_context);
  const abi::TensorInfo* info = owned_by_context;
  TensorType type{0, dims_of(*this, info), {}};
  type.symbols.assign(type.dims.size(), "");
  call(Slot::GetTensorElementType, info, &type.element);
  call(Slot::GetSymbolicDimensions, info, type.symbols.data(), type.symbols.size());
  return type;
}

void Api::infer_output(abi::ShapeContext* context, size_t index, const TensorType& type) const {
  abi::TensorInfo* info = nullptr;
  call(Slot::CreateTensorTypeAndShapeInfo, &info);
  const OwnedInfo owned(*this, info);
  auto symbols = type.symbols;
  call(Slot::SetTensorElementType, info, type.element);
  call(Slot::SetDimensions, info, type.dims.data(), type.dims.size());
  call(Slot::SetSymbolicDimensions, info, symbols.data(), symbols.size());
  const abi::ShapeContext* const_context = context;
  const abi::TensorInfo* const_info = info;
  call(Slot::ShapeInferContext_SetOutputTypeShape, const_context, index, const_info);
}

}  // namespace onnxq
