#include "cpu/elementwise.hpp"

#include "cpu/elementwise_plain.hpp"
#include "cpu/tier.hpp"

namespace onnxq {

const Elementwise& chosen_elementwise() {
  static const Elementwise portable = {plain_sum,    plain_byte_sum, plain_product,
                                       plain_lookup, plain_max_rows, plain_sum_rows};
  chosen_tier();  // throws for an unknown one
  return portable;
}

}  // namespace onnxq
