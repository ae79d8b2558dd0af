#include "ort/api.hpp"

#include <atomic>
#include <utility>

#include "cpu/common/sizes.hpp"

namespace onnxq {

using abi::Slot;

namespace {

constexpr size_t kAlignment = 64;

// Releases onnxruntime's description of a type at the end of the scope.
template <class T, Slot kRelease>
class Owned {
 public:
  Owned(const Api& api, T* info) : api_(api), info_(info) {}
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  ~Owned() { api_.release(kRelease, info_); }

 private:
  const Api& api_;
  T* info_;
};
using OwnedTensorInfo = Owned<abi::TensorInfo, Slot::ReleaseTensorTypeAndShapeInfo>;
using OwnedTypeInfo = Owned<abi::TypeInfo, Slot::ReleaseTypeInfo>;

// A name for an unknown dimension. No two are equal, as equal names mean equal sizes.
std::string unknown_dimension() {
  static std::atomic<uint64_t> count{0};
  return "onnxq_unknown_" + std::to_string(count++);
}

std::vector<int64_t> dims_of(const Api& api, const abi::TensorInfo* info) {
  size_t rank = 0;
  api.call(Slot::GetDimensionsCount, info, &rank);
  std::vector<int64_t> dims(rank);
  api.call(Slot::GetDimensions, info, dims.data(), rank);
  return dims;
}

// One error code covers both a missing attribute and one of a different type; only the message distinguishes them.
bool is_wrong_type(const Error& error) { return std::string(error.what()).find("match") != std::string::npos; }

}  // namespace

std::optional<int64_t> Api::integer(const abi::KernelInfo* info, const char* attribute) const {
  int64_t value = 0;
  try {
    call(Slot::KernelInfoGetAttribute_int64, info, attribute, &value);
  } catch (const Error& error) {
    if (is_wrong_type(error)) throw Error(std::string("attribute ") + attribute + " must be an integer");
    return std::nullopt;
  }
  return value;
}

std::optional<std::vector<int64_t>> Api::integers(const abi::KernelInfo* info, const char* attribute) const {
  size_t count = 0;
  int64_t* const ask_for_count = nullptr;
  try {
    call(Slot::KernelInfoGetAttributeArray_int64, info, attribute, ask_for_count, &count);
    std::vector<int64_t> values(count);
    if (count) call(Slot::KernelInfoGetAttributeArray_int64, info, attribute, values.data(), &count);
    return values;
  } catch (const Error& error) {
    if (is_wrong_type(error)) throw Error(std::string("attribute ") + attribute + " must be a list of integers");
    return std::nullopt;
  }
}

int Api::input_element(const abi::KernelInfo* info, size_t index) const {
  abi::TypeInfo* type = nullptr;
  call(Slot::KernelInfo_GetInputTypeInfo, info, index, &type);
  const OwnedTypeInfo owned(*this, type);
  const abi::TypeInfo* const_type = type;
  const abi::TensorInfo* owned_by_type = nullptr;
  call(Slot::CastTypeInfoToTensorInfo, const_type, &owned_by_type);
  if (!owned_by_type) throw Error("input " + std::to_string(index) + " must be a tensor");
  int element = 0;
  call(Slot::GetTensorElementType, owned_by_type, &element);
  return element;
}

Tensor Api::constant(const abi::KernelInfo* info, size_t index, const char* name) const {
  int is_constant = 0;
  const abi::Value* value = nullptr;
  call(Slot::KernelInfoGetConstantInput_tensor, info, index, &is_constant, &value);
  if (!is_constant)
    throw Error(std::string("input ") + name + " must be an initializer that is not also a graph input");
  return tensor(value);
}

Tensor Api::input(const abi::KernelContext* context, size_t index) const {
  const abi::Value* value = nullptr;
  call(Slot::KernelContext_GetInput, context, index, &value);
  return tensor(value);
}

void* Api::output(abi::KernelContext* context, size_t index, const std::vector<int64_t>& dims) const {
  int64_t values = 1;
  for (const int64_t d : dims) values = bounded_product(values, d);
  if (values > kMostValues) throw Error("y would have more than 2^34 values");
  abi::Value* value = nullptr;
  void* data = nullptr;
  call(Slot::KernelContext_GetOutput, context, index, dims.data(), dims.size(), &value);
  call(Slot::GetTensorMutableData, value, &data);
  return data;
}

Tensor Api::tensor(const abi::Value* value) const {
  Tensor t{0, nullptr, {}, 1};
  void* data = nullptr;
  call(Slot::GetTensorMutableData, const_cast<abi::Value*>(value), &data);
  t.data = data;
  abi::TensorInfo* info = nullptr;
  call(Slot::GetTensorTypeAndShape, value, &info);
  const OwnedTensorInfo owned(*this, info);
  const abi::TensorInfo* const_info = info;
  call(Slot::GetTensorElementType, const_info, &t.element);
  t.dims = dims_of(*this, info);
  for (const int64_t d : t.dims) t.size *= static_cast<size_t>(d);
  return t;
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
  const OwnedTensorInfo owned(*this, info);
  auto symbols = type.symbols;
  symbols.resize(type.dims.size(), "");
  // A size of -1 without a name would be taken literally, and Shape folded to it.
  std::vector<std::string> invented(type.dims.size());
  for (size_t i = 0; i < type.dims.size(); i++) {
    if (type.dims[i] >= 0 || *symbols[i]) continue;
    invented[i] = unknown_dimension();
    symbols[i] = invented[i].c_str();
  }
  call(Slot::SetTensorElementType, info, type.element);
  call(Slot::SetDimensions, info, type.dims.data(), type.dims.size());
  call(Slot::SetSymbolicDimensions, info, symbols.data(), symbols.size());
  const abi::ShapeContext* const_context = context;
  const abi::TensorInfo* const_info = info;
  call(Slot::ShapeInferContext_SetOutputTypeShape, const_context, index, const_info);
}

std::optional<std::vector<int64_t>> Api::integers(const abi::ShapeContext* context, const char* attribute) const {
  const abi::OpAttribute* found = nullptr;
  try {
    call(Slot::ShapeInferContext_GetAttribute, context, attribute, &found);
  } catch (const Error&) {
    return std::nullopt;
  }
  // Asked for a list where there is one integer, onnxruntime returns nothing; the other way round it fails.
  int64_t values[64] = {};
  size_t bytes = 0;
  void* const to = values;
  const auto read = [&](abi::AttributeType type, size_t room) {
    call(Slot::ReadOpAttr, found, static_cast<int>(type), to, room, &bytes);
  };
  read(abi::kAttributeInts, sizeof(values));
  if (bytes == 0) {
    read(abi::kAttributeInt, sizeof(int64_t));
    bytes = sizeof(int64_t);
  }
  return std::vector<int64_t>(values, values + bytes / sizeof(int64_t));
}

Scratch::Scratch(abi::Allocator* allocator, size_t bytes) : allocator_(allocator) {
  if (!bytes) return;
  memory_ = allocator->Alloc(allocator, bytes + kAlignment);
  if (!memory_) throw Error("out of memory: " + std::to_string(bytes) + " bytes of scratch memory");
  const auto address = reinterpret_cast<uintptr_t>(memory_);
  aligned_ = static_cast<uint8_t*>(memory_) + (kAlignment - address % kAlignment) % kAlignment;
}

Scratch::~Scratch() {
  if (memory_) allocator_->Free(allocator_, memory_);
}

ScratchSource::ScratchSource(const Api& api, const abi::KernelInfo* info) : api_(api) {
  api.call(Slot::KernelInfoGetAllocator, info, 0, &allocator_);  // 0: OrtMemTypeDefault
}

ScratchSource::ScratchSource(ScratchSource&& other) noexcept
    : api_(other.api_), allocator_(std::exchange(other.allocator_, nullptr)) {}

ScratchSource::~ScratchSource() {
  if (allocator_) api_.release(Slot::ReleaseAllocator, allocator_);
}

}  // namespace onnxq
