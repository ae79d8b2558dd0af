// What the CPU and the operating system offer to integer kernels.
#pragma once

namespace onnxq {

struct CpuFeatures {
  bool avx2 = false;
  bool avxvnni = false;     // 256-bit vpdpbusd, VEX encoded
  bool avx512vnni = false;  // with the F, BW, DQ and VL parts that the kernels use
  bool avx512vbmi = false;  // in addition to avx512vnni
  bool avx512ifma = false;  // in addition to avx512vnni
  bool amx_int8 = false;    // tiles, and this process is permitted to use them
};

// Detected once. A feature is reported only when the operating system saves its registers.
const CpuFeatures& cpu_features();

}  // namespace onnxq
