// Layer normalisation of rows, and its gradient.
#pragma once

#include <cmath>
#include <cstdint>

namespace msg_ms {

constexpr float kEpsilon = 1e-5f;

struct Moments {
  float mean, inverse;  // inverse: 1 / standard deviation
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

inline void normalise(const float *x, const float *gamma, const float *beta, int64_t n, float *y) {
  const Moments m = moments(x, n);
#pragma omp simd
  for (int64_t c = 0; c < n; ++c) y[c] = (x[c] - m.mean) * m.inverse * gamma[c] + beta[c];
}

// dx of a normalised row; adds to the gradients of gamma and beta.
inline void normalise_grad(const float *x, const float *dy, const float *gamma, int64_t n, float *dx, float *dgamma,
                           float *dbeta) {
  const Moments m = moments(x, n);
  float along_one = 0, along_x = 0;
#pragma omp simd reduction(+ : along_one, along_x)
  for (int64_t c = 0; c < n; ++c) {
    const float scaled = (x[c] - m.mean) * m.inverse, d = dy[c] * gamma[c];
    along_one += d;
    along_x += d * scaled;
    dgamma[c] += dy[c] * scaled;
    dbeta[c] += dy[c];
  }
  along_one /= n;
  along_x /= n;
#pragma omp simd
  for (int64_t c = 0; c < n; ++c) {
    dx[c] = m.inverse * (dy[c] * gamma[c] - along_one - (x[c] - m.mean) * m.inverse * along_x);
  }
}

}  // namespace msg_ms
