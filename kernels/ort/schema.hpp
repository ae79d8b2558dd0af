// What the operators of domain com.onnxq look like: their inputs, output types and attributes. The table is generated
// from the schemas in Python, where defaults and counts are defined.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace onnxq {

struct InputSchema {
  const char* name;
  std::vector<int> variants = {};  // element types to declare, with an operator for each; none: any type
};

struct AttributeSchema {
  const char* name;
  std::vector<int64_t> fallback = {};  // the default, one value unless it is a list; none: required
};

struct OperatorSchema {
  const char* name;
  std::vector<InputSchema> inputs;
  std::vector<int> outputs;  // element types that y may have
  std::vector<AttributeSchema> attributes;

  // Both throw Error when there is none of that name.
  size_t input(const std::string& input_name) const;
  const AttributeSchema& attribute(const std::string& attribute_name) const;
};

// The schema of an operator. Throws Error when the table has none: tools/generators/operator_table.py writes it.
const OperatorSchema& schema_of(const std::string& name);

}  // namespace onnxq
