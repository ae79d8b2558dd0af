// RegisterCustomOps: called by onnxruntime when a session's options name this library.
#include "export.hpp"
#include "ort/api.hpp"
#include "ort/registry.hpp"

namespace onnxq {
namespace {

// Built for the first session and shared by all: onnxruntime keeps pointers to it as long as a session lives.
const abi::CustomOpDomain* domain(const Api& api) {
  static const abi::CustomOpDomain* const shared = [&] {
    abi::CustomOpDomain* made = nullptr;
    api.call(abi::Slot::CreateCustomOpDomain, "com.onnxq", &made);
    for (const abi::CustomOp* op : all_operators(api)) api.call(abi::Slot::CustomOpDomain_Add, made, op);
    return made;
  }();
  return shared;
}

}  // namespace
}  // namespace onnxq

ONNXQ_EXPORT onnxq::abi::Status* RegisterCustomOps(onnxq::abi::SessionOptions* options,
                                                   const onnxq::abi::ApiBase* base) {
  using namespace onnxq;
  const abi::Table table = base->GetApi(abi::kApiVersion);
  if (!table) {  // version 1 of the API can still report the error
    return Api(base->GetApi(1)).status(abi::kFail, "the onnxq kernels need onnxruntime 1.18 or later");
  }
  const Api api(table);
  return api.guard([&] { api.call(abi::Slot::AddCustomOpDomain, options, domain(api)); });
}
