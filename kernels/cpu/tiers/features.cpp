#include "cpu/tiers/features.hpp"

#include <cstdint>
#include <string>

#include "export.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace onnxq {
namespace {

#if defined(__x86_64__)

struct Cpuid {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  Cpuid(uint32_t leaf, uint32_t subleaf) {
    if (!__get_cpuid_count(leaf, subleaf, &eax, &ebx, &ecx, &edx)) *this = {};
  }
  Cpuid() = default;
};

bool bit(uint32_t word, int n) { return (word >> n) & 1; }

// XCR0: the register files that the operating system saves on a context switch.
uint64_t saved_state() {
  if (!bit(Cpuid(1, 0).ecx, 27)) return 0;  // OSXSAVE
  uint32_t low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t{high} << 32) | low;
}

// Linux grants AMX tile data only on request, and may refuse (seccomp, old kernel).
bool tile_permission() {
#if defined(__linux__)
  constexpr long kArchReqXcompPerm = 0x1023;
  constexpr long kTileData = 18;
  return syscall(SYS_arch_prctl, kArchReqXcompPerm, kTileData) == 0;
#else
  return false;
#endif
}

CpuFeatures detect() {
  constexpr uint64_t kYmm = 0x6, kZmm = 0xe6, kTiles = 0x60000;
  const uint64_t saved = saved_state();
  const Cpuid leaf7(7, 0), leaf7_1(7, 1);
  const bool ymm = (saved & kYmm) == kYmm;
  const bool zmm = (saved & kZmm) == kZmm;
  const bool tiles = (saved & kTiles) == kTiles;

  CpuFeatures f;
  f.avx2 = ymm && bit(leaf7.ebx, 5);
  f.avxvnni = f.avx2 && bit(leaf7_1.eax, 4);
  const bool avx512 = bit(leaf7.ebx, 16) && bit(leaf7.ebx, 17) && bit(leaf7.ebx, 30) && bit(leaf7.ebx, 31);
  f.avx512vnni = zmm && avx512 && bit(leaf7.ecx, 11);
  f.avx512vbmi = f.avx512vnni && bit(leaf7.ecx, 1);
  f.avx512ifma = f.avx512vnni && bit(leaf7.ebx, 21);
  f.amx_int8 = tiles && bit(leaf7.edx, 24) && bit(leaf7.edx, 25) && tile_permission();
  return f;
}

#else

CpuFeatures detect() { return {}; }

#endif

}  // namespace

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = detect();
  return features;
}

}  // namespace onnxq

// The features that tiers need, by name, separated by spaces.
ONNXQ_EXPORT const char* onnxq_cpu_features() {
  static const std::string names = [] {
    const onnxq::CpuFeatures& f = onnxq::cpu_features();
    std::string all;
    if (f.avx2) all += "avx2 ";
    if (f.avxvnni) all += "avxvnni ";
    if (f.avx512vnni) all += "avx512vnni ";
    if (f.avx512vbmi) all += "avx512vbmi ";
    if (f.avx512ifma) all += "avx512ifma ";
    if (f.amx_int8) all += "amx_int8 ";
    return all;
  }();
  return names.c_str();
}
