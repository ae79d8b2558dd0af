#include "ort/schema.hpp"

#include <algorithm>

#include "ort/abi.hpp"
#include "ort/api.hpp"

namespace onnxq {
namespace {

const std::vector<OperatorSchema>& schemas() {
  using namespace abi;
  // Never destroyed: sessions may outlive static objects.
  static const auto& all = *new std::vector<OperatorSchema>{
#include "ort/schema_table.inc"
  };
  return all;
}

template <class T>
const T& named(const std::vector<T>& all, const std::string& name, const std::string& what) {
  const auto found = std::find_if(all.begin(), all.end(), [&](const T& one) { return one.name == name; });
  if (found == all.end()) throw Error("schema_table.inc has no " + what + " " + name);
  return *found;
}

}  // namespace

size_t OperatorSchema::input(const std::string& input_name) const {
  return static_cast<size_t>(&named(inputs, input_name, std::string("input of ") + name) - inputs.data());
}

const AttributeSchema& OperatorSchema::attribute(const std::string& attribute_name) const {
  return named(attributes, attribute_name, std::string("attribute of ") + name);
}

const OperatorSchema& schema_of(const std::string& name) { return named(schemas(), name, "operator"); }

}  // namespace onnxq
