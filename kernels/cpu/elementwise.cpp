#include "cpu/elementwise.hpp"

#include <string>

#include "cpu/elementwise_isa.hpp"
#include "cpu/elementwise_plain.hpp"
#include "cpu/features.hpp"
#include "cpu/tier.hpp"

namespace onnxq {

const Elementwise kElementwisePortable = {plain_sum,           plain_byte_sum,  plain_product,  plain_lookup,
                                          plain_channels_last, plain_max_rows,  plain_sum_rows, plain_moments,
                                          plain_scale,         plain_pack_step, plain_subtract,  plain_divide};

const Elementwise& chosen_elementwise() {
  [[maybe_unused]] const std::string tier = chosen_tier().name;
#if defined(ONNXQ_ELEMENTWISE_AVX512)
  static const Elementwise avx512 = [] {
    Elementwise made = kElementwiseAvx512;
#if defined(ONNXQ_ELEMENTWISE_VBMI)
    if (cpu_features().avx512vbmi) made.lookup = lookup_vbmi;
#endif
    return made;
  }();
  if (tier == "amx" || tier == "avx512vnni") return avx512;
#endif
#if defined(ONNXQ_ELEMENTWISE_AVX2)
  if (tier != "portable") return kElementwiseAvx2;
#endif
  return kElementwisePortable;
}

}  // namespace onnxq
