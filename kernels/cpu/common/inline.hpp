// How files of one instruction set tell the compiler what to inline and unroll. Only macros: nothing here is compiled.
#pragma once

#define ONNXQ_INLINE static inline __attribute__((always_inline))
#define ONNXQ_INLINE_MEMBER inline __attribute__((always_inline))
#if defined(__clang__)
#define ONNXQ_UNROLL _Pragma("clang loop unroll(full)")
#else
#define ONNXQ_UNROLL _Pragma("GCC unroll 16")
#endif
