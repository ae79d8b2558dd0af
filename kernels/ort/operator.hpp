// An operator of domain com.onnxq: a table of functions around a kernel class.
//
// Kernel has
//   Kernel(const Node&)                                     packs the constant inputs; throws when the node is invalid
//   void compute(const Api&, abi::KernelContext*) const
//   static void infer(const Inference&)                     sets the type and shape of the output
//   static constexpr int kReplaced                          optional: the input whose memory y may take over. Every
//                                                           value of it is read before the value of y is written.
//
// Inputs are declared with any type and checked by the kernel. An output of any type would take the type of an input,
// so there is one operator for each; onnxruntime picks by the type that shape inference gives (since 1.20 at the
// latest; 1.31 would do with one operator). The same holds for weights, int8 or int4: onnxruntime 1.20 does not count
// int4 among all types.
#pragma once

#include <climits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "ort/abi.hpp"
#include "ort/api.hpp"
#include "ort/node.hpp"
#include "ort/registry.hpp"

namespace onnxq {

template <class Kernel, class = void>
struct Replaced {
  static constexpr int input = -1;
};
template <class Kernel>
struct Replaced<Kernel, std::void_t<decltype(Kernel::kReplaced)>> {
  static constexpr int input = Kernel::kReplaced;
};

template <class Kernel>
class Operator : public abi::CustomOp {
 public:
  // inputs: the types to declare. output: y's.
  Operator(const Api& api, const OperatorSchema& schema, std::vector<int> inputs, int output)
      : abi::CustomOp{}, api_(api), schema_(schema), inputs_(std::move(inputs)), output_(output) {
    version = abi::kApiVersion;
    GetName = [](const CustomOp* op) { return self(op).schema_.name; };
    GetExecutionProviderType = [](const CustomOp*) -> const char* { return nullptr; };  // the CPU
    GetInputType = [](const CustomOp* op, size_t i) { return self(op).inputs_[i]; };
    GetOutputType = [](const CustomOp* op, size_t) { return self(op).output_; };
    GetInputTypeCount = [](const CustomOp* op) { return self(op).inputs_.size(); };
    GetOutputTypeCount = [](const CustomOp*) { return size_t{1}; };
    GetInputCharacteristic = GetOutputCharacteristic = [](const CustomOp*, size_t) { return 0; };  // required
    GetInputMemoryType = [](const CustomOp*, size_t) { return 0; };
    GetVariadicInputMinArity = GetVariadicOutputMinArity = [](const CustomOp*) { return 1; };
    GetVariadicInputHomogeneity = GetVariadicOutputHomogeneity = [](const CustomOp*) { return 1; };
    GetStartVersion = [](const CustomOp*) { return 1; };
    GetEndVersion = [](const CustomOp*) { return INT_MAX; };
    // Tensors that pass through a residual sum then stay in one place in the cache.
    GetMayInplace = [](int** inputs_of, int** outputs_of) -> size_t {
      if (Replaced<Kernel>::input < 0) return 0;
      static int from = Replaced<Kernel>::input, to = 0;
      *inputs_of = &from;
      *outputs_of = &to;
      return 1;
    };
    ReleaseMayInplace = [](int*, int*) {};
    GetAliasMap = [](int**, int**) -> size_t { return 0; };
    ReleaseAliasMap = [](int*, int*) {};

    CreateKernelV2 = [](const CustomOp* op, abi::Table, const abi::KernelInfo* info, void** kernel) {
      const Operator& me = self(op);
      const char* const name = me.schema_.name;
      return me.api_.guard([&] {
        named(name, [&] { *kernel = new Instance{me.api_, name, Kernel(Node(me.api_, me.schema_, info))}; });
      });
    };
    KernelComputeV2 = [](void* kernel, abi::KernelContext* context) {
      const auto& instance = *static_cast<const Instance*>(kernel);
      return instance.api.guard([&] { named(instance.name, [&] { instance.kernel.compute(instance.api, context); }); });
    };
    KernelDestroy = [](void* kernel) { delete static_cast<Instance*>(kernel); };
    InferOutputShape = [](const CustomOp* op, abi::ShapeContext* context) {
      const Operator& me = self(op);
      return me.api_.guard(
          [&] { named(me.schema_.name, [&] { Kernel::infer(Inference(me.api_, me.schema_, context)); }); });
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
  const OperatorSchema& schema_;
  std::vector<int> inputs_;
  int output_;
};

// One operator for each combination of the types that must be declared.
template <class Kernel>
Operators make_operators(const Api& api, const OperatorSchema& schema) {
  std::vector<std::vector<int>> inputs{{}};
  for (const InputSchema& input : schema.inputs) {
    std::vector<std::vector<int>> longer;
    for (const int type : input.variants.empty() ? std::vector<int>{abi::kAny} : input.variants)
      for (std::vector<int> types : inputs) {
        types.push_back(type);
        longer.push_back(std::move(types));
      }
    inputs = std::move(longer);
  }
  Operators all;
  for (const std::vector<int>& types : inputs)
    for (const int output : schema.outputs) all.push_back(new Operator<Kernel>(api, schema, types, output));
  return all;
}

}  // namespace onnxq

// Registers a kernel class for the operator of this name. At the end of the operator's file, in its unnamed namespace.
#define ONNXQ_OPERATOR(name, ...) \
  const ::onnxq::Registration registered_##name(#name, ::onnxq::make_operators<__VA_ARGS__>)
