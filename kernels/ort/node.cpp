#include "ort/node.hpp"

#include <string>

namespace onnxq {

int64_t Node::integer(const char* attribute) const {
  const AttributeSchema& schema = schema_.attribute(attribute);
  if (const auto value = api_.integer(info_, attribute)) return *value;
  if (schema.fallback.empty())
    throw Error(std::string("attribute ") + attribute + " is required and must be an integer");
  return schema.fallback[0];
}

Dims Node::integers(const char* attribute) const {
  const AttributeSchema& schema = schema_.attribute(attribute);
  return api_.integers(info_, attribute).value_or(schema.fallback);
}

int Node::element(const char* input) const { return api_.input_element(info_, schema_.input(input)); }

Tensor Node::constant(const char* input) const { return api_.constant(info_, schema_.input(input), input); }

std::vector<int32_t> Node::constant_vector(const char* input) const {
  const Tensor values = constant(input);
  if (values.element != abi::kInt32) throw Error(std::string(input) + " must be int32");
  if (values.size == 0 || values.dims.size() > 1) throw Error(std::string(input) + " must be one value or a vector");
  return {values.as<int32_t>(), values.as<int32_t>() + values.size};
}

int64_t Inference::integer(const char* attribute) const {
  const Dims values = integers(attribute);
  if (values.size() != 1) throw Error(std::string("attribute ") + attribute + " is required and must be an integer");
  return values[0];
}

Dims Inference::integers(const char* attribute) const {
  const AttributeSchema& schema = schema_.attribute(attribute);
  return api_.integers(context_, attribute).value_or(schema.fallback);
}

}  // namespace onnxq
