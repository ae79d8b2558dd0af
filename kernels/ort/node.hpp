// A node of com.onnxq while its kernel is made, and while shapes are inferred. Inputs and attributes go by the names
// of the operator's schema, which also gives the defaults.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/common/broadcast.hpp"
#include "ort/api.hpp"
#include "ort/schema.hpp"

namespace onnxq {

// A node while its kernel is made.
class Node {
 public:
  Node(const Api& api, const OperatorSchema& schema, const abi::KernelInfo* info)
      : api_(api), schema_(schema), info_(info) {}

  // The value of an integer attribute. Throws when it is required and missing, or not an integer.
  int64_t integer(const char* attribute) const;
  // The values of a list of integers; none where a required one is missing. Throws when it is not a list of integers.
  Dims integers(const char* attribute) const;
  // The element type of an input.
  int element(const char* input) const;
  // An input that is known when the session is made. Throws when it is not.
  Tensor constant(const char* input) const;
  // The same as int32 values. Throws when it has a different type or is neither one value nor a vector.
  std::vector<int32_t> constant_vector(const char* input) const;
  // The session's allocator, for memory while the kernel runs.
  ScratchSource scratch() const { return ScratchSource(api_, info_); }

 private:
  const Api& api_;
  const OperatorSchema& schema_;
  const abi::KernelInfo* info_;
};

// A node while shapes are inferred.
class Inference {
 public:
  Inference(const Api& api, const OperatorSchema& schema, abi::ShapeContext* context)
      : api_(api), schema_(schema), context_(context) {}

  // Type and shape of an input.
  TensorType input(const char* name) const { return api_.inferred_input(context_, schema_.input(name)); }
  void output(const TensorType& type) const { api_.infer_output(context_, 0, type); }
  // As those of Node; integer() also takes a list of one.
  int64_t integer(const char* attribute) const;
  Dims integers(const char* attribute) const;

 private:
  const Api& api_;
  const OperatorSchema& schema_;
  abi::ShapeContext* context_;
};

}  // namespace onnxq
