// What MindSpore hands to a kernel of ops.Custom, and memory to work in.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

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

// Memory to work in, aligned for any vector. A thread keeps what it gives back for its next kernel, as new memory costs a
// page fault for every 4 KB; it never keeps more pieces than it had in use at a time.
constexpr int64_t kLeastElements = 1 << 13;  // that are worth a thread

class Memory {
 public:
  explicit Memory(int64_t n) : block_(take(n)) {}
  ~Memory() { kept().push_back(std::move(block_)); }
  Memory(const Memory &) = delete;
  Memory &operator=(const Memory &) = delete;
  operator float *() const { return block_.data.get(); }

 private:
  struct Free {
    void operator()(float *p) const { std::free(p); }
  };
  struct Block {
    int64_t size = 0;
    std::unique_ptr<float, Free> data;
  };

  static std::vector<Block> &kept() {
    static thread_local std::vector<Block> blocks;
    return blocks;
  }

  // The smallest that fits of those kept; else a new one in the place of the largest.
  static Block take(int64_t n) {
    std::vector<Block> &blocks = kept();
    const auto better = [n](const Block &a, const Block &b) {
      return a.size >= n && b.size >= n ? a.size < b.size : a.size > b.size;
    };
    Block block;
    if (const auto best = std::min_element(blocks.begin(), blocks.end(), better); best != blocks.end()) {
      block = std::move(*best);
      blocks.erase(best);
    }
    if (block.size < n) {
      block.data.reset(static_cast<float *>(std::aligned_alloc(64, round_up(n * 4 + 64, 64))));
      block.size = n;
    }
    return block;
  }

  Block block_;
};

// Memory that starts as zeros.
class Buffer : public Memory {
 public:
  explicit Buffer(int64_t n) : Memory(n) { std::memset(static_cast<float *>(*this), 0, n * sizeof(float)); }
};

// Adds `parts` partial sums of length n, one after the other, to `to`.
inline void add_parts(const float *from, int parts, int64_t n, float *to) {
  for (int part = 0; part < parts; ++part) {
    for (int64_t i = 0; i < n; ++i) to[i] += from[part * n + i];
  }
}

}  // namespace msg_ms
