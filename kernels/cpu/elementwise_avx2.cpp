// The plain inner loops as the compiler vectorises them for AVX2.
#include "cpu/elementwise_isa.hpp"
#include "cpu/elementwise_plain.hpp"

namespace onnxq {

const Elementwise kElementwiseAvx2 = {plain_sum,    plain_byte_sum, plain_product,
                                      plain_lookup, plain_max_rows, plain_sum_rows};

}  // namespace onnxq
