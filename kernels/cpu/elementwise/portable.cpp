// The inner loops that every CPU runs.
#include "cpu/elementwise/plain.hpp"
#include "cpu/elementwise/tables.hpp"

namespace onnxq {
namespace {

constexpr Elementwise kTable = {
    plain_sum,      plain_byte_sum, plain_product, plain_lookup, plain_table_sum, plain_channels_last,
    plain_max_rows, plain_sum_rows, plain_moments, plain_scale,  plain_pack_step, plain_subtract,
    plain_divide};

}  // namespace

const Elementwise& elementwise_portable() { return kTable; }

}  // namespace onnxq
