#include "cpu/tiers/tier.hpp"

#include <chrono>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "cpu/tiers/features.hpp"
#include "export.hpp"

namespace onnxq {
namespace {

struct TierEntry {
  const char* name;
  const char* needs;  // CPU features, separated by spaces
  bool (*runs_on)(const CpuFeatures&);
  const char* inner_loop;  // what it is made of, in a few words
  const Tier* tier;        // null where the compiler lacks the instruction set
};

const TierEntry kTiers[] = {
#define ONNXQ_TIER(name, tier, needs, runs, inner_loop) \
  {#name, needs, []([[maybe_unused]] const CpuFeatures& cpu) { return runs; }, inner_loop, tier},
#include "tiers.inc"
#undef ONNXQ_TIER
};

const TierEntry& chosen_entry() {
  const char* asked = std::getenv("ONNXQ_ISA");
  std::string names;
  for (const TierEntry& entry : kTiers) {
    if (!entry.tier || !entry.runs_on(cpu_features())) continue;
    if (!asked || !*asked || std::string(asked) == entry.name) return entry;
    names += std::string(names.empty() ? "" : ", ") + entry.name;
  }
  throw std::runtime_error("ONNXQ_ISA=" + std::string(asked) + " is unavailable; this build and CPU support " + names);
}

}  // namespace

const Tier& chosen_tier() { return *chosen_entry().tier; }

}  // namespace onnxq

// The names of the tiers that are compiled in, best first, separated by spaces.
ONNXQ_EXPORT const char* onnxq_kernel_tiers() {
  static const std::string names = [] {
    std::string all;
    for (const onnxq::TierEntry& entry : onnxq::kTiers)
      if (entry.tier) all += std::string(entry.name) + " ";
    return all;
  }();
  return names.c_str();
}

// The table of tiers, best first, compiled in or not. A line each: name, the CPU features it needs (separated by
// spaces) and its inner loop, separated by tabs.
ONNXQ_EXPORT const char* onnxq_tier_table() {
  static const std::string lines = [] {
    std::string all;
    for (const onnxq::TierEntry& entry : onnxq::kTiers)
      all += std::string(entry.name) + "\t" + entry.needs + "\t" + entry.inner_loop + "\n";
    return all;
  }();
  return lines.c_str();
}

// The tier that a kernel made now would use; "" when ONNXQ_ISA names one that is unavailable.
ONNXQ_EXPORT const char* onnxq_kernel_isa() {
  try {
    return onnxq::chosen_entry().name;
  } catch (const std::exception&) {
    return "";
  }
}

// Multiply-adds per second on one thread of the chosen tier's own instruction, measured for `seconds`; 0 when ONNXQ_ISA
// names a tier that is unavailable.
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

// Seconds that `millions` million multiply-adds of the chosen tier's own instruction take on this thread now: a probe
// of how much of the core it has. Three times as many before them are not timed: a core that was idle and its wide units
// wake up meanwhile. 0 when ONNXQ_ISA names a tier that is unavailable.
ONNXQ_EXPORT double onnxq_probe_seconds(int64_t millions) {
  try {
    const onnxq::Tier& tier = onnxq::chosen_tier();
    using Clock = std::chrono::steady_clock;
    tier.peak(3 * millions);
    const auto start = Clock::now();
    tier.peak(millions);
    return std::chrono::duration<double>(Clock::now() - start).count();
  } catch (const std::exception&) {
    return 0;
  }
}
