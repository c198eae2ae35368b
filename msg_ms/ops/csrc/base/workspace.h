// Workspaces: scratch memory of a kernel, recycled from call to call.
//
// Fresh memory costs a page fault for every 4 KB, so each thread caches the blocks that its workspaces release. A
// thread never caches more blocks than it had in use at one time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "base/vector.h"

namespace msg_ms {

// n floats, aligned for any vector, uninitialized.
class Workspace {
 public:
  explicit Workspace(int64_t n) : block_(acquire(n)) {}
  ~Workspace() { cached().push_back(std::move(block_)); }
  Workspace(const Workspace &) = delete;
  Workspace &operator=(const Workspace &) = delete;
  operator float *() const { return block_.data.get(); }

 private:
  struct Free {
    void operator()(float *p) const { std::free(p); }
  };
  struct Block {
    int64_t size = 0;
    std::unique_ptr<float, Free> data;
  };

  static std::vector<Block> &cached() {
    static thread_local std::vector<Block> blocks;
    return blocks;
  }

  // Return the smallest cached block that fits. If none fits, replace the largest by a new one.
  static Block acquire(int64_t n) {
    std::vector<Block> &blocks = cached();
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

// A workspace filled with zeros.
class ZeroedWorkspace : public Workspace {
 public:
  explicit ZeroedWorkspace(int64_t n) : Workspace(n) { std::memset(static_cast<float *>(*this), 0, n * sizeof(float)); }
};

}  // namespace msg_ms
