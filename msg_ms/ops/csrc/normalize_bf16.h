// Layer normalization of several rows at once: the sums of one row are chains that leave a processor idle.
#pragma once

#include "branch.h"
#include "gemm_bf16.h"
#include "layer_norm.h"

namespace msg_ms {

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
    for (int r = 0; r < kRows; ++r) store(r, c, lanes, (entries(r, c, lanes) - mean[r]) * inverse_std[r] * scale + shift);
  });
}

// Call body(first row, number of rows as a compile-time constant) for [begin, end).
template <typename Body>
inline void for_rows_at_once(int64_t begin, int64_t end, const Body &body) {
  int64_t i = begin;
  for (; i + kRowsAtOnce <= end; i += kRowsAtOnce) body(i, std::integral_constant<int, kRowsAtOnce>());
  for (; i < end; ++i) body(i, std::integral_constant<int, 1>());
}

// Normalize rows [first, first + n) of the branch's input and round them. Padded patches become zeros.
template <typename Arithmetic>
void normalize_and_round(const Branch &branch, int64_t first, int64_t n, const float *gamma, const float *beta,
                         const HalfRows &to) {
  const int64_t channels = branch.channels;
  parallel_for(n, branch.grain(), [&](int, int64_t begin, int64_t end) {
    for_rows_at_once(begin, end, [&](int64_t i, auto rows) {
      normalize_rows<rows>(branch.x + (first + i) * channels, channels, nullptr, gamma, beta, channels,
                           [&](int r, int64_t c, int64_t lanes, Vec value)
                             MSG_MS_INLINE { store_rounded<Arithmetic>(to.at(i + r, c), value, lanes); });
    });
    for (int64_t i = begin; i < end; ++i) {
      if (branch.padding && branch.padding.covers(first + i)) std::memset(to.at(i, 0), 0, 2 * to.pairs * sizeof(BFloat16));
    }
  });
}

}  // namespace msg_ms
