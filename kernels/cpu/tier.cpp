#include "cpu/tier.hpp"

#include <chrono>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "cpu/portable.hpp"
#include "export.hpp"
#if defined(ONNXQ_AMX)
#include "cpu/amx.hpp"
#endif
#if defined(ONNXQ_AVX2)
#include "cpu/avx2.hpp"
#endif
#if defined(ONNXQ_AVXVNNI)
#include "cpu/avxvnni.hpp"
#endif
#if defined(ONNXQ_AVX512VNNI)
#include "cpu/avx512vnni.hpp"
#endif

namespace onnxq {

const Tier* const* tiers() {
  static const Tier* const all[] = {
#if defined(ONNXQ_AMX)
      &kAmx,
#endif
#if defined(ONNXQ_AVX512VNNI)
      &kAvx512Vnni,
#endif
#if defined(ONNXQ_AVXVNNI)
      &kAvxVnni,
#endif
#if defined(ONNXQ_AVX2)
      &kAvx2,
#endif
      &kPortable,
      nullptr,
  };
  return all;
}

const Tier& chosen_tier() {
  const char* asked = std::getenv("ONNXQ_ISA");
  std::string names;
  for (const Tier* const* tier = tiers(); *tier; tier++) {
    if (!(*tier)->available()) continue;
    if (!asked || !*asked || std::string(asked) == (*tier)->name) return **tier;
    names += std::string(names.empty() ? "" : ", ") + (*tier)->name;
  }
  throw std::runtime_error("ONNXQ_ISA=" + std::string(asked) + " is not to be had here: this library and CPU have " + names);
}

}  // namespace onnxq

// The names of the tiers that are compiled in, best first, separated by spaces.
ONNXQ_EXPORT const char* onnxq_kernel_tiers() {
  static const std::string names = [] {
    std::string all;
    for (const onnxq::Tier* const* tier = onnxq::tiers(); *tier; tier++) all += std::string((*tier)->name) + " ";
    return all;
  }();
  return names.c_str();
}

// The tier that a kernel made now would use; "" when ONNXQ_ISA names one that is not there.
ONNXQ_EXPORT const char* onnxq_kernel_isa() {
  try {
    return onnxq::chosen_tier().name;
  } catch (const std::exception&) {
    return "";
  }
}

// Multiply-adds a second on one thread of the chosen tier's own instruction, measured for `seconds`; 0 when there is none.
ONNXQ_EXPORT double onnxq_peak_macs(double seconds) {
  try {
    const onnxq::Tier& tier = onnxq::chosen_tier();
    using Clock = std::chrono::steady_clock;
    double best = 0;
    for (const auto end = Clock::now() + std::chrono::duration<double>(seconds); Clock::now() < end;) {
      const auto start = Clock::now();
      const auto macs = static_cast<double>(tier.peak(100));
      const std::chrono::duration<double> taken = Clock::now() - start;
      if (macs / taken.count() > best) best = macs / taken.count();
    }
    return best;
  } catch (const std::exception&) {
    return 0;
  }
}
