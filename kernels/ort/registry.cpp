#include "ort/registry.hpp"

#include <map>
#include <string>

namespace onnxq {
namespace {

const Registration* first = nullptr;  // initialized before any code runs, so that files may register in any order

}  // namespace

Registration::Registration(const char* op_name, Make make_operators)
    : name(op_name), make(make_operators), next(first) {
  first = this;
}

Operators all_operators(const Api& api) {
  std::map<std::string, const Registration*> by_name;
  for (const Registration* one = first; one; one = one->next)
    if (!by_name.emplace(one->name, one).second) throw Error(std::string(one->name) + " is registered twice");
  Operators all;
  for (const auto& [name, registration] : by_name)
    for (const abi::CustomOp* op : registration->make(api, schema_of(name))) all.push_back(op);
  return all;
}

}  // namespace onnxq
