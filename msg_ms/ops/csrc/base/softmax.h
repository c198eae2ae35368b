// Softmax of one row of attention scores, and its gradient. Rows are padded to whole vectors by scores of -1e30.
#pragma once

#include <type_traits>

#include "base/vector.h"

namespace msg_ms {

// Replace a row of scores by exp(row + bias - max) / sum. Rows of kVectors vectors stay in registers; kVectors = 0 is
// for longer rows.
template <int kVectors>
inline void softmax(float *row, const float *bias, int64_t columns) {
  const int64_t n = kVectors > 0 ? kVectors : columns / kLanes;
  Vec in_registers[kVectors > 0 ? kVectors : 1], largest{}, total{};
#pragma GCC unroll 8
  for (int64_t j = 0; j < n; ++j) {
    const Vec s = load(row + j * kLanes) + load(bias + j * kLanes);
    if (kVectors > 0)
      in_registers[j] = s;
    else
      store(row + j * kLanes, s);
    largest = j == 0 ? s : s > largest ? s : largest;
  }
  const float row_max = horizontal_max(largest);
#pragma GCC unroll 8
  for (int64_t j = 0; j < n; ++j) {
    const Vec e = exp_nonpositive((kVectors > 0 ? in_registers[j] : load(row + j * kLanes)) - row_max);
    if (kVectors > 0)
      in_registers[j] = e;
    else
      store(row + j * kLanes, e);
    total += e;
  }
  const float inverse_sum = 1.0f / horizontal_sum(total);
#pragma GCC unroll 8
  for (int64_t j = 0; j < n; ++j) {
    store(row + j * kLanes, (kVectors > 0 ? in_registers[j] : load(row + j * kLanes)) * inverse_sum);
  }
}

// Replace the gradient d of a row of weights by that of its scores, weight * (d - sum of weight * d); add it to dbias.
template <int kVectors>
inline void softmax_grad(const float *weights, float *d, float *dbias, int64_t columns) {
  const int64_t n = kVectors > 0 ? kVectors : columns / kLanes;
  Vec products{};
#pragma GCC unroll 8
  for (int64_t j = 0; j < n; ++j) products += load(weights + j * kLanes) * load(d + j * kLanes);
  const float dot = horizontal_sum(products);
#pragma GCC unroll 8
  for (int64_t j = 0; j < n; ++j) {
    const Vec ds = load(weights + j * kLanes) * (load(d + j * kLanes) - dot);
    store(d + j * kLanes, ds);
    store(dbias + j * kLanes, load(dbias + j * kLanes) + ds);
  }
}

// Call body with the number of vectors in a row as a compile-time constant: 2 or 4 (windows of 4 and 7), else 0.
template <typename Body>
inline void with_row_vectors(int64_t columns, const Body &body) {
  switch (columns / kLanes) {
    case 2: return body(std::integral_constant<int, 2>());
    case 4: return body(std::integral_constant<int, 4>());
    default: return body(std::integral_constant<int, 0>());
  }
}

}  // namespace msg_ms
