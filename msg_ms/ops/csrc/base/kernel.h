// The calling convention of a native kernel: a function that MindSpore loads through ops.Custom ("aot").
//
// All inputs and outputs are float32 and contiguous; the Python side (backend.py) guarantees it. A kernel returns 0 on
// success. Any other value makes MindSpore raise an error.
#pragma once

#include <cstdint>
#include <cstring>

#include "base/parallel.h"
#include "base/vector.h"
#include "base/workspace.h"

// Define a kernel. `params` holds the inputs first, then the outputs; `dims` and `shapes` describe them in that order.
#define MSG_MS_KERNEL(name)                                                                                   \
  extern "C" __attribute__((visibility("default"))) int name(                                                 \
    [[maybe_unused]] int count, void **params, [[maybe_unused]] int *dims, [[maybe_unused]] int64_t **shapes, \
    [[maybe_unused]] const char **dtypes, [[maybe_unused]] void *stream, [[maybe_unused]] void *extra)

namespace msg_ms {

inline float *data(void **params, int i) { return static_cast<float *>(params[i]); }

inline int64_t size(const int64_t *shape, int dims) {
  int64_t n = 1;
  for (int i = 0; i < dims; ++i) n *= shape[i];
  return n;
}

// The least number of elements that is worth a thread.
constexpr int64_t kMinElements = 1 << 13;

// Add `count` partial sums of length n, stored one after the other, to `to`.
inline void add_partial_sums(const float *from, int count, int64_t n, float *to) {
  for (int k = 0; k < count; ++k) {
    for (int64_t i = 0; i < n; ++i) to[i] += from[k * n + i];
  }
}

}  // namespace msg_ms
