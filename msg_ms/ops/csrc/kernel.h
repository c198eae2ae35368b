// What MindSpore hands to a kernel of ops.Custom, and memory to work in.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>

#include "parallel.h"
#include "vector.h"

// Inputs first, then outputs; all are single precision and contiguous, as the Python side sees to.
#define MSG_MS_KERNEL(name)                                                                                     \
  extern "C" __attribute__((visibility("default"))) int name(                                                   \
    [[maybe_unused]] int count, void **params, [[maybe_unused]] int *dims, [[maybe_unused]] int64_t **shapes,    \
    [[maybe_unused]] const char **dtypes, [[maybe_unused]] void *stream, [[maybe_unused]] void *extra)

namespace msg_ms {

inline float *data(void **params, int i) { return static_cast<float *>(params[i]); }

inline int64_t size(const int64_t *shape, int dims) {
  int64_t n = 1;
  for (int i = 0; i < dims; ++i) n *= shape[i];
  return n;
}

struct Free {
  void operator()(float *p) const { std::free(p); }
};

// Zeros, aligned for any vector.
class Buffer {
 public:
  explicit Buffer(int64_t n) : data_(static_cast<float *>(std::aligned_alloc(64, round_up(n * 4 + 64, 64)))) {
    std::memset(data_.get(), 0, n * sizeof(float));
  }
  operator float *() { return data_.get(); }

 private:
  std::unique_ptr<float, Free> data_;
};

// Adds `parts` partial sums of length n, one after the other, into `to`.
inline void add_parts(const float *from, int parts, int64_t n, float *to) {
  for (int64_t i = 0; i < n; ++i) to[i] = 0;
  for (int part = 0; part < parts; ++part) {
    for (int64_t i = 0; i < n; ++i) to[i] += from[part * n + i];
  }
}

}  // namespace msg_ms
