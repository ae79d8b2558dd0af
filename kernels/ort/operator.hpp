// An operator of domain com.onnxq: a table of types around a kernel class.
//
// Kernel has
//   Kernel(const Api&, const abi::KernelInfo*)   packs the constant inputs; throws when the node makes no sense
//   void compute(const Api&, abi::KernelContext*) const
//   static void infer(const Api&, abi::ShapeContext*)   sets the types and shapes of the outputs
//
// Two operators of one name with different types are overloads: onnxruntime picks by the types of the inputs.
#pragma once

#include <climits>
#include <string>
#include <utility>
#include <vector>

#include "ort/abi.hpp"
#include "ort/api.hpp"

namespace onnxq {

template <class Kernel>
class Operator : public abi::CustomOp {
 public:
  Operator(const Api& api, const char* name, std::vector<int> inputs, std::vector<int> outputs)
      : abi::CustomOp{}, api_(api), name_(name), inputs_(std::move(inputs)), outputs_(std::move(outputs)) {
    version = abi::kApiVersion;
    GetName = [](const CustomOp* op) { return self(op).name_; };
    GetExecutionProviderType = [](const CustomOp*) -> const char* { return nullptr; };  // the CPU
    GetInputType = [](const CustomOp* op, size_t i) { return self(op).inputs_[i]; };
    GetInputTypeCount = [](const CustomOp* op) { return self(op).inputs_.size(); };
    GetOutputType = [](const CustomOp* op, size_t i) { return self(op).outputs_[i]; };
    GetOutputTypeCount = [](const CustomOp* op) { return self(op).outputs_.size(); };
    GetInputCharacteristic = [](const CustomOp*, size_t) { return 0; };  // required
    GetOutputCharacteristic = [](const CustomOp*, size_t) { return 0; };
    GetInputMemoryType = [](const CustomOp*, size_t) { return 0; };
    GetVariadicInputMinArity = GetVariadicOutputMinArity = [](const CustomOp*) { return 1; };
    GetVariadicInputHomogeneity = GetVariadicOutputHomogeneity = [](const CustomOp*) { return 1; };
    GetStartVersion = [](const CustomOp*) { return 1; };
    GetEndVersion = [](const CustomOp*) { return INT_MAX; };

    CreateKernelV2 = [](const CustomOp* op, abi::Table, const abi::KernelInfo* info, void** kernel) {
      const Operator& me = self(op);
      return me.api_.guard([&] {
        try {
          *kernel = new Instance{me.api_, Kernel(me.api_, info)};
        } catch (const Error& error) {
          throw Error(std::string("com.onnxq:") + me.name_ + ": " + error.what());
        }
      });
    };
    KernelComputeV2 = [](void* kernel, abi::KernelContext* context) {
      const auto& instance = *static_cast<const Instance*>(kernel);
      return instance.api.guard([&] { instance.kernel.compute(instance.api, context); });
    };
    KernelDestroy = [](void* kernel) { delete static_cast<Instance*>(kernel); };
    InferOutputShape = [](const CustomOp* op, abi::ShapeContext* context) {
      return self(op).api_.guard([&] { Kernel::infer(self(op).api_, context); });
    };
  }

 private:
  struct Instance {
    Api api;
    Kernel kernel;
  };

  static const Operator& self(const CustomOp* op) { return *static_cast<const Operator*>(op); }

  Api api_;
  const char* name_;
  std::vector<int> inputs_, outputs_;
};

}  // namespace onnxq
