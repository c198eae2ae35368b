// Small matrix products on buffers whose rows are padded to whole vectors.
#pragma once

#include "tile.h"

namespace msg_ms {

// c[i][j] = sum over k of a(i, k) * b[k][j], with a(i, k) = a[i * a_row + k * a_step] and `columns` whole vectors.
inline void product(int64_t rows, int64_t columns, int64_t depth, const float *a, int64_t a_row, int64_t a_step,
                    const float *b, int64_t b_row, float *c, int64_t c_row) {
  int64_t j = 0;
  const auto some = [&](auto vectors) {
    constexpr int64_t kWidth = vectors * kLanes;
    for (; j + kWidth <= columns; j += kWidth) {
      tiles<vectors>(rows, depth, a, a_row, a_step, b + j, b_row, NothingAhead(),
                     [&](int64_t i, const auto &total) MSG_MS_INLINE {
                       put_tile<false>(total, {nullptr, 0, c + i * c_row + j, c_row, kWidth});
                     });
    }
  };
  some(std::integral_constant<int, kMostVectors>());
  some(std::integral_constant<int, 2>());
  some(std::integral_constant<int, 1>());
}

}  // namespace msg_ms
