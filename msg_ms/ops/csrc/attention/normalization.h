// The layer normalization of a branch's input, and its gradient.
#pragma once

#include "attention/branch.h"
#include "attention/gradients.h"
#include "base/layer_norm.h"

namespace msg_ms {

// Normalize rows [first, first + n) of the input: call store(row, column, lanes, value) for each vector, with rows
// counted from `first`, and then clear(row) for padded patches.
template <typename Store, typename Clear>
void normalize(const Branch &branch, int64_t first, int64_t n, const float *gamma, const float *beta,
               const Store &store, const Clear &clear) {
  const int64_t channels = branch.channels;
  const float *const x = branch.x + first * channels;
  parallel_for(n, branch.grain(), [&](int, int64_t begin, int64_t end) {
    // By value, so that the variables of `store` are in registers.
    for_rows_at_once(begin, end, [=](int64_t i, auto rows) {
      normalize_rows<rows>(x + i * channels, channels, nullptr, gamma, beta, channels,
                           [=](int r, int64_t c, int64_t lanes, Vec value)
                             MSG_MS_INLINE { store(i + r, c, lanes, value); });
    });
    for (int64_t i = begin; branch.padding && i < end; ++i) {
      if (branch.padding.covers(first + i)) clear(i);
    }
  });
}

// Normalize rows [first, first + n) of the input into an operand. Padded patches become zeros.
template <typename Products>
void normalize(const Branch &branch, int64_t first, int64_t n, const float *gamma, const float *beta,
               const RowWriter<Products> &to) {
  normalize(
    branch, first, n, gamma, beta,
    [=](int64_t i, int64_t c, int64_t lanes, Vec value) MSG_MS_INLINE { to.store(i, c, lanes, value); },
    [=](int64_t i) { to.clear(i); });
}

// Normalize rows [first, first + n) of the input into y. Padded patches become zeros.
inline void normalize(const Branch &branch, int64_t first, int64_t n, const float *gamma, const float *beta, float *y) {
  normalize(branch, first, n, gamma, beta, RowWriter<SingleProducts>{y, branch.channels, branch.channels});
}

// Compute dx = dout + the gradient through the normalization, for rows from `first`, and add to dgamma and dbeta.
// Overwrites dnormalized; dx may be dout.
inline void input_gradient(const Branch &branch, int64_t first, int64_t n, const float *dout, float *dnormalized,
                           const float *gamma, float *dx, const VectorGradient &dgamma, const VectorGradient &dbeta) {
  const int64_t channels = branch.channels;
  parallel_for(n, branch.grain(), [&](int thread, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float *d = dnormalized + i * channels;
      if (branch.is_padding(first + i)) {
        if (dx != dout) std::memcpy(dx + i * channels, dout + i * channels, channels * sizeof(float));
        continue;
      }
      normalize_row_grad(branch.x + (first + i) * channels, d, gamma, channels, d, dgamma.of_thread(thread),
                         dbeta.of_thread(thread));
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) dx[i * channels + c] = dout[i * channels + c] + d[c];
    }
  });
}

}  // namespace msg_ms
