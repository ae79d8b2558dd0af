// An operator of domain com.onnxq: a table of functions around a kernel class.
//
// Kernel has
//   Kernel(const Api&, const abi::KernelInfo*)   packs the constant inputs; throws when the node makes no sense
//   void compute(const Api&, abi::KernelContext*) const
//   static void infer(const Api&, abi::ShapeContext*)   sets the types and shapes of the outputs
//
// Inputs are declared of any type and checked by the kernel. An output of any type would take that of an input, so there
// is an operator for each; onnxruntime picks by the type that shape inference says
// (since 1.20 at the latest; 1.31 would do with one operator).
#pragma once

#include <climits>
#include <initializer_list>
#include <string>
#include <vector>

#include "ort/abi.hpp"
#include "ort/api.hpp"

namespace onnxq {

template <class Kernel>
class Operator : public abi::CustomOp {
 public:
  // second: the type of the second input, the weights where an operator has some.
  Operator(const Api& api, const char* name, size_t inputs, int output, int second = abi::kAny)
      : abi::CustomOp{}, api_(api), name_(name), inputs_(inputs), output_(output), second_(second) {
    version = abi::kApiVersion;
    GetName = [](const CustomOp* op) { return self(op).name_; };
    GetExecutionProviderType = [](const CustomOp*) -> const char* { return nullptr; };  // the CPU
    GetInputType = [](const CustomOp* op, size_t i) { return i == 1 ? self(op).second_ : abi::kAny; };
    GetOutputType = [](const CustomOp* op, size_t) { return self(op).output_; };
    GetInputTypeCount = [](const CustomOp* op) { return self(op).inputs_; };
    GetOutputTypeCount = [](const CustomOp*) { return size_t{1}; };
    GetInputCharacteristic = GetOutputCharacteristic = [](const CustomOp*, size_t) { return 0; };  // required
    GetInputMemoryType = [](const CustomOp*, size_t) { return 0; };
    GetVariadicInputMinArity = GetVariadicOutputMinArity = [](const CustomOp*) { return 1; };
    GetVariadicInputHomogeneity = GetVariadicOutputHomogeneity = [](const CustomOp*) { return 1; };
    GetStartVersion = [](const CustomOp*) { return 1; };
    GetEndVersion = [](const CustomOp*) { return INT_MAX; };

    CreateKernelV2 = [](const CustomOp* op, abi::Table, const abi::KernelInfo* info, void** kernel) {
      const Operator& me = self(op);
      return me.api_.guard(
          [&] { named(me.name_, [&] { *kernel = new Instance{me.api_, me.name_, Kernel(me.api_, info)}; }); });
    };
    KernelComputeV2 = [](void* kernel, abi::KernelContext* context) {
      const auto& instance = *static_cast<const Instance*>(kernel);
      return instance.api.guard(
          [&] { named(instance.name, [&] { instance.kernel.compute(instance.api, context); }); });
    };
    KernelDestroy = [](void* kernel) { delete static_cast<Instance*>(kernel); };
    InferOutputShape = [](const CustomOp* op, abi::ShapeContext* context) {
      const Operator& me = self(op);
      return me.api_.guard([&] { named(me.name_, [&] { Kernel::infer(me.api_, context); }); });
    };
  }

 private:
  struct Instance {
    Api api;
    const char* name;
    Kernel kernel;
  };

  static const Operator& self(const CustomOp* op) { return *static_cast<const Operator*>(op); }

  template <class F>
  static void named(const char* name, F&& body) {
    try {
      body();
    } catch (const Error& error) {
      throw Error(std::string("com.onnxq:") + name + ": " + error.what());
    }
  }

  Api api_;
  const char* name_;
  size_t inputs_;
  int output_, second_;
};

// The operator for each type that its output may have.
template <class Kernel>
std::vector<const abi::CustomOp*> operators(const Api& api, const char* name, size_t inputs,
                                            std::initializer_list<int> outputs = {abi::kUint8, abi::kInt8, abi::kInt32}) {
  std::vector<const abi::CustomOp*> all;
  for (const int output : outputs) all.push_back(new Operator<Kernel>(api, name, inputs, output));
  return all;
}

// The same for operators whose second input are weights, int8 or int4: onnxruntime 1.20 does not count int4 among all types.
template <class Kernel>
std::vector<const abi::CustomOp*> weighted_operators(const Api& api, const char* name, size_t inputs) {
  std::vector<const abi::CustomOp*> all;
  for (const int weights : {abi::kInt8, abi::kInt4})
    for (const int output : {abi::kUint8, abi::kInt8, abi::kInt32})
      all.push_back(new Operator<Kernel>(api, name, inputs, output, weights));
  return all;
}

}  // namespace onnxq
