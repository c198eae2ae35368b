// Layer normalization of one row, and its gradient. A NaN in the row makes the whole row NaN.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "base/vector.h"

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

// Several rows at once: the sums of one row are chains that leave a processor idle.
constexpr int kRowsAtOnce = 4;

// Call store(row, column, lanes, value) for each vector of the normalized rows [0, kRows); rows are `stride` apart, and
// x plus `bias` is normalized unless that is null.
template <int kRows, typename Store>
inline void normalize_rows(const float *x, int64_t stride, const float *bias, const float *gamma, const float *beta,
                           int64_t channels, const Store &store) {
  const auto entries = [&](int r, int64_t c, int64_t lanes) MSG_MS_INLINE {
    const Vec v = load_lanes(x + r * stride + c, lanes);
    return bias == nullptr ? v : v + load_lanes(bias + c, lanes);
  };
  Vec sums[kRows] = {};
  float mean[kRows], inverse_std[kRows];
  for_each_vector(channels, [&](int64_t c, int64_t lanes) {
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) sums[r] += entries(r, c, lanes);
  });
  for (int r = 0; r < kRows; ++r) mean[r] = horizontal_sum(sums[r]) / channels, sums[r] = Vec{};
  for_each_vector(channels, [&](int64_t c, int64_t lanes) {
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const Vec centered = entries(r, c, lanes) - mean[r];
      const Vec counted = lanes == kLanes ? centered : load_partial(reinterpret_cast<const float *>(&centered), lanes);
      sums[r] += counted * counted;
    }
  });
  for (int r = 0; r < kRows; ++r) inverse_std[r] = 1.0f / std::sqrt(horizontal_sum(sums[r]) / channels + kEpsilon);
  for_each_vector(channels, [&](int64_t c, int64_t lanes) {
    const Vec scale = load_lanes(gamma + c, lanes), shift = load_lanes(beta + c, lanes);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r)
      store(r, c, lanes, (entries(r, c, lanes) - mean[r]) * inverse_std[r] * scale + shift);
  });
}

// Call body(first row, number of rows as a compile-time constant) for [begin, end).
template <typename Body>
inline void for_rows_at_once(int64_t begin, int64_t end, const Body &body) {
  int64_t i = begin;
  for (; i + kRowsAtOnce <= end; i += kRowsAtOnce) body(i, std::integral_constant<int, kRowsAtOnce>());
  for (; i < end; ++i) body(i, std::integral_constant<int, 1>());
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
