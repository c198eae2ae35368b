// The sum at the end of a branch, out = x + drop_path_scale * f, and the gradient of f.
#pragma once

#include "attention/branch.h"
#include "attention/gradients.h"

namespace msg_ms {

// Return the epilogue of the branch's last GEMM, for rows from `first`: out = x + drop_path_scale * (out + bias).
inline auto residual_epilogue(const Branch &branch, int64_t first, const float *bias, float *out) {
  return [=, &branch](int, int64_t row, int64_t rows, int64_t column, int64_t columns) {
    const int64_t channels = branch.channels;
    for (int64_t i = first + row; i < first + row + rows; ++i) {
      const float scale = branch.scale_of(i), *from = branch.x + i * channels;
      float *to = out + i * channels;
      prefetch(from + rows * channels + column, columns);  // for the next tile
#pragma omp simd
      for (int64_t c = column; c < column + columns; ++c) to[c] = from[c] + scale * (to[c] + bias[c]);
    }
  };
}

// Return the branch's gradient, drop_path_scale * dout, for rows from `first`: in `workspace`, or dout if unscaled. Add
// its column sums to dbias.
inline const float *branch_gradient(const Branch &branch, int64_t first, int64_t n, const float *dout, float *workspace,
                                    const VectorGradient &dbias) {
  const int64_t channels = branch.channels;
  parallel_for(n, branch.grain(), [&](int thread, int64_t begin, int64_t end) {
    float *total = dbias.of_thread(thread);
    for (int64_t i = begin; i < end; ++i) {
      const float scale = branch.scale_of(first + i), *from = dout + i * channels;
      float *to = workspace + i * channels;
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) {
        const float d = from[c] * scale;
        total[c] += d;
        if (!branch.unscaled) to[c] = d;
      }
    }
  });
  return branch.unscaled ? dout : workspace;
}

}  // namespace msg_ms
