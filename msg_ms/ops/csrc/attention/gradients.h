// Gradients of a branch's parameters, which the threads of a chunk-parallel loop (chunks.h) sum up together.
#pragma once

#include <algorithm>
#include <vector>

#include "gemm/products.h"

namespace msg_ms {

// The gradient of a vector of n parameters: each thread sums for itself, and the destructor writes the total to `to`.
class VectorGradient {
 public:
  VectorGradient(int64_t n, float *to) : n_(n), to_(to), partial_sums_(num_threads() * n) {
    std::memset(to, 0, n * sizeof(float));
  }
  ~VectorGradient() { add_partial_sums(partial_sums_, num_threads(), n_, to_); }

  float *of_thread(int thread) const { return partial_sums_ + thread * n_; }
  float *of_all_threads() const { return partial_sums_; }

 private:
  int64_t n_;
  float *to_;
  ZeroedWorkspace partial_sums_;
};

// The gradient of a weight, a sum of products. If chunk-parallel, each thread sums for itself: the first in `to`, to
// which the destructor adds the others.
class WeightGradient {
 public:
  WeightGradient(int64_t rows, int64_t columns, float *to, bool chunk_parallel)
      : rows_(rows),
        columns_(columns),
        to_(to),
        initialized_(num_threads(), 0),
        partial_sums_(chunk_parallel ? (num_threads() - 1) * rows * columns : 1) {}

  ~WeightGradient() {
    const int64_t n = rows_ * columns_;
    parallel_for(n, kMinElements, [&](int, int64_t begin, int64_t end) {
      if (!initialized_[0]) std::memset(to_ + begin, 0, (end - begin) * sizeof(float));
      for (int thread = 1; thread < static_cast<int>(initialized_.size()); ++thread) {
        if (initialized_[thread]) add_partial_sums(of_thread(thread) + begin, 1, end - begin, to_ + begin);
      }
    });
  }

  // Add a (rows, depth) b (depth, columns), operands of Products.
  template <typename Products>
  void add(int64_t depth, Matrix a, Matrix b) {
    const int thread = std::max(serial_thread(), 0);
    Products::multiply(rows_, columns_, depth, a, b, of_thread(thread), nullptr, initialized_[thread]);
    initialized_[thread] = 1;
  }

 private:
  float *of_thread(int thread) const { return thread == 0 ? to_ : partial_sums_ + (thread - 1) * rows_ * columns_; }

  int64_t rows_, columns_;
  float *to_;
  std::vector<char> initialized_;
  Workspace partial_sums_;
};

}  // namespace msg_ms
