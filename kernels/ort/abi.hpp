// The part of ONNX Runtime's C ABI that onnxq uses: slot numbers, element types and the order of struct members, which
// are only ever appended to. Declared here, as onnxruntime's wheel ships no headers.
#pragma once

#include <cstddef>
#include <cstdint>

namespace onnxq::abi {

struct Status;
struct Value;
struct SessionOptions;
struct CustomOpDomain;
struct KernelInfo;
struct KernelContext;
struct TensorInfo;
struct ShapeContext;
struct OpAttribute;
struct TypeInfo;

using Table = void* const*;  // OrtApi is a table of function pointers only
struct ApiBase {
  Table (*GetApi)(uint32_t version);
  const char* (*GetVersionString)();
};

// The start of OrtAllocator. Alloc does not throw; it returns null when out of memory.
struct Allocator {
  uint32_t version;
  void* (*Alloc)(Allocator*, size_t);
  void (*Free)(Allocator*, void*);
};

// 18 is the first version in which an output may take over the memory of an input; onnxruntime 1.18 and later serve it.
constexpr uint32_t kApiVersion = 18;

enum class Slot : size_t {
  CreateStatus = 0,
  GetErrorMessage = 2,
  CreateCustomOpDomain = 26,
  CustomOpDomain_Add = 27,
  AddCustomOpDomain = 28,
  GetTensorMutableData = 51,
  CastTypeInfoToTensorInfo = 55,
  CreateTensorTypeAndShapeInfo = 57,
  SetTensorElementType = 58,
  SetDimensions = 59,
  GetTensorElementType = 60,
  GetDimensionsCount = 61,
  GetDimensions = 62,
  GetSymbolicDimensions = 63,
  GetTensorTypeAndShape = 65,
  KernelInfoGetAttribute_int64 = 86,
  KernelContext_GetInput = 90,
  KernelContext_GetOutput = 91,
  ReleaseStatus = 93,
  ReleaseTypeInfo = 98,
  ReleaseTensorTypeAndShapeInfo = 99,
  ReleaseAllocator = 132,
  KernelInfoGetAttributeArray_int64 = 163,
  KernelInfo_GetInputTypeInfo = 234,
  KernelInfoGetConstantInput_tensor = 249,
  ShapeInferContext_GetInputTypeShape = 268,
  ShapeInferContext_GetAttribute = 269,
  ShapeInferContext_SetOutputTypeShape = 270,
  SetSymbolicDimensions = 271,
  ReadOpAttr = 272,
  KernelContext_ParallelFor = 274,
  KernelInfoGetAllocator = 278,
};

// kAny in a custom operator's table: any type.
enum Element : int { kAny = 0, kUint8 = 2, kInt8 = 3, kInt16 = 5, kInt32 = 6, kInt64 = 7, kInt4 = 22 };
enum AttributeType : int { kAttributeInt = 1, kAttributeInts = 2 };
enum ErrorCode : int { kFail = 1, kInvalidArgument = 2, kInvalidGraph = 10 };

struct CustomOp {
  uint32_t version;
  void* (*CreateKernel)(const CustomOp*, Table, const KernelInfo*);
  const char* (*GetName)(const CustomOp*);
  const char* (*GetExecutionProviderType)(const CustomOp*);
  int (*GetInputType)(const CustomOp*, size_t);
  size_t (*GetInputTypeCount)(const CustomOp*);
  int (*GetOutputType)(const CustomOp*, size_t);
  size_t (*GetOutputTypeCount)(const CustomOp*);
  void (*KernelCompute)(void*, KernelContext*);
  void (*KernelDestroy)(void*);
  int (*GetInputCharacteristic)(const CustomOp*, size_t);
  int (*GetOutputCharacteristic)(const CustomOp*, size_t);
  int (*GetInputMemoryType)(const CustomOp*, size_t);
  int (*GetVariadicInputMinArity)(const CustomOp*);
  int (*GetVariadicInputHomogeneity)(const CustomOp*);
  int (*GetVariadicOutputMinArity)(const CustomOp*);
  int (*GetVariadicOutputHomogeneity)(const CustomOp*);
  Status* (*CreateKernelV2)(const CustomOp*, Table, const KernelInfo*, void**);  // used when version >= 16
  Status* (*KernelComputeV2)(void*, KernelContext*);                             // used when version >= 16
  Status* (*InferOutputShape)(const CustomOp*, ShapeContext*);                   // used when version >= 17
  int (*GetStartVersion)(const CustomOp*);                                       // used when version >= 17
  int (*GetEndVersion)(const CustomOp*);                                         // used when version >= 17
  size_t (*GetMayInplace)(int**, int**);                                         // used when version >= 18
  void (*ReleaseMayInplace)(int*, int*);
  size_t (*GetAliasMap)(int**, int**);
  void (*ReleaseAliasMap)(int*, int*);
};

}  // namespace onnxq::abi
