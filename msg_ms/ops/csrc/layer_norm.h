// Layer normalization of one row, and its gradient. A NaN in the row makes the whole row NaN.
#pragma once

#include <cmath>
#include <cstdint>

namespace msg_ms {

constexpr float kEpsilon = 1e-5f;  // PyTorch's

struct Moments {
  float mean, inverse_std;
};

inline Moments moments(const float *x, int64_t n) {
  float total = 0, squares = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t c = 0; c < n; ++c) total += x[c];
  const float mean = total / n;
#pragma omp simd reduction(+ : squares)
  for (int64_t c = 0; c < n; ++c) squares += (x[c] - mean) * (x[c] - mean);
  return {mean, 1.0f / std::sqrt(squares / n + kEpsilon)};
}

inline void normalize_row(const float *x, const float *gamma, const float *beta, int64_t n, float *y) {
  const Moments m = moments(x, n);
#pragma omp simd
  for (int64_t c = 0; c < n; ++c) y[c] = (x[c] - m.mean) * m.inverse_std * gamma[c] + beta[c];
}

// Compute dx of one row and add to dgamma and dbeta.
inline void normalize_row_grad(const float *x, const float *dy, const float *gamma, int64_t n, float *dx, float *dgamma,
                               float *dbeta) {
  const Moments m = moments(x, n);
  float mean_d = 0, mean_dx = 0;  // of the gradient, and of the gradient times the normalized row
#pragma omp simd reduction(+ : mean_d, mean_dx)
  for (int64_t c = 0; c < n; ++c) {
    const float normalized = (x[c] - m.mean) * m.inverse_std, d = dy[c] * gamma[c];
    mean_d += d;
    mean_dx += d * normalized;
    dgamma[c] += dy[c] * normalized;
    dbeta[c] += dy[c];
  }
  mean_d /= n;
  mean_dx /= n;
#pragma omp simd
  for (int64_t c = 0; c < n; ++c) {
    dx[c] = m.inverse_std * (dy[c] * gamma[c] - mean_d - (x[c] - m.mean) * m.inverse_std * mean_dx);
  }
}

}  // namespace msg_ms
