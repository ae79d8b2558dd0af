// The operators that the library registers. Each operator's file adds its own with ONNXQ_OPERATOR (operator.hpp).
#pragma once

#include <vector>

#include "ort/api.hpp"
#include "ort/schema.hpp"

namespace onnxq {

using Operators = std::vector<const abi::CustomOp*>;  // never deleted: onnxruntime keeps pointers to them

// Links itself into a list while the library is loaded. The order is unspecified.
struct Registration {
  using Make = Operators (*)(const Api&, const OperatorSchema&);

  Registration(const char* op_name, Make make_operators);

  const char* name;
  Make make;
  const Registration* next;
};

// The operators of all files, sorted by name. Throws Error when a name is registered twice or has no schema.
Operators all_operators(const Api& api);

}  // namespace onnxq
