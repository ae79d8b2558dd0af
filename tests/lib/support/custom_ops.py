"""A library of operators for onnxruntime, compiled here: acme.Twice of any number of dimensions, y = 2·x in float32."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

DOMAIN, OP = "acme", "Twice"
# The part of onnxruntime's C ABI that it takes: positions in OrtApi, and the order of OrtCustomOp's members.
SOURCE = r"""
#include <stddef.h>
#include <stdint.h>
typedef void* const* Api;
typedef struct { Api (*get)(uint32_t); const char* (*version)(void); } Base;
enum { FLOAT = 1 };
static Api api;
static void* create(const void* op, Api a, const void* info) { return (void*)&api; }
static const char* name(const void* op) { return "Twice"; }
static const char* provider(const void* op) { return NULL; }
static int type(const void* op, size_t i) { return FLOAT; }
static size_t one(const void* op) { return 1; }
static int zero(const void* op, size_t i) { return 0; }
static int zero_of(const void* op) { return 0; }
static int since(const void* op) { return 1; }
static int until(const void* op) { return 1 << 20; }
static void destroy(void* kernel) {}
static void compute(void* kernel, void* context) {
  const void* x; void* y; void* info; size_t rank = 0, count = 0;
  float* from; float* to; int64_t dims[8];
  ((void* (*)(void*, size_t, const void**))api[90])(context, 0, &x);
  ((void* (*)(const void*, void**))api[65])(x, &info);
  ((void* (*)(const void*, size_t*))api[61])(info, &rank);
  ((void* (*)(const void*, int64_t*, size_t))api[62])(info, dims, rank);
  ((void* (*)(const void*, size_t*))api[64])(info, &count);
  ((void (*)(void*))api[99])(info);
  ((void* (*)(void*, size_t, const int64_t*, size_t, void**))api[91])(context, 0, dims, rank, &y);
  ((void* (*)(void*, void**))api[51])((void*)x, (void**)&from);
  ((void* (*)(void*, void**))api[51])(y, (void**)&to);
  for (size_t i = 0; i < count; ++i) to[i] = 2.0f * from[i];
}
static struct {
  uint32_t version;
  void* (*create)(const void*, Api, const void*);
  const char* (*name)(const void*); const char* (*provider)(const void*);
  int (*input_type)(const void*, size_t); size_t (*inputs)(const void*);
  int (*output_type)(const void*, size_t); size_t (*outputs)(const void*);
  void (*compute)(void*, void*); void (*destroy)(void*);
  int (*input_kind)(const void*, size_t); int (*output_kind)(const void*, size_t); int (*memory)(const void*, size_t);
  int (*least_in)(const void*); int (*same_in)(const void*);
  int (*least_out)(const void*); int (*same_out)(const void*);
  void* create2; void* compute2; void* infer;
  int (*since)(const void*); int (*until)(const void*);
} op = {15, create, name, provider, type, one, type, one, compute, destroy, zero, zero, zero, zero_of, zero_of, zero_of,
        zero_of, NULL, NULL, NULL, since, until};
__attribute__((visibility("default"))) void* RegisterCustomOps(void* options, const Base* base) {
  void* domain; void* status;
  api = base->get(15);
  if ((status = ((void* (*)(const char*, void**))api[26])("acme", &domain))) return status;
  if ((status = ((void* (*)(void*, const void*))api[27])(domain, &op))) return status;
  return ((void* (*)(void*, void*))api[28])(options, domain);
}
"""


def build_library(folder: Path) -> Path:
    """Compile the library; skips the test where there is no C compiler."""
    compiler = next((c for c in ("cc", "gcc", "clang") if shutil.which(c)), None)
    if compiler is None:
        pytest.skip("no C compiler")
    source, library = folder / "twice.c", folder / "libtwice.so"
    source.write_text(SOURCE)
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source], check=True, capture_output=True)
    return library
