// Small matrix products on buffers whose rows are padded to whole vectors.
#pragma once

#include "vector.h"

namespace msg_ms {

template <int kRows, int kVectors>
inline void product_block(int64_t depth, const float *a, int64_t a_row, int64_t a_step, const float *b, int64_t b_row,
                          float *c, int64_t c_row) {
  Vec total[kRows][kVectors] = {};
  for (int64_t k = 0; k < depth; ++k) {
    Vec right[kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) right[v] = load(b + k * b_row + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const float left = a[r * a_row + k * a_step];
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) total[r][v] += left * right[v];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) store(c + r * c_row + v * kLanes, total[r][v]);
  }
}

template <int kVectors>
inline void product_columns(int64_t rows, int64_t depth, const float *a, int64_t a_row, int64_t a_step, const float *b,
                            int64_t b_row, float *c, int64_t c_row) {
  constexpr int kRows = tile_rows(kVectors);
  int64_t i = 0;
  for (; i + kRows <= rows; i += kRows) {
    product_block<kRows, kVectors>(depth, a + i * a_row, a_row, a_step, b, b_row, c + i * c_row, c_row);
  }
  for (; i + 4 <= rows; i += 4) {
    product_block<4, kVectors>(depth, a + i * a_row, a_row, a_step, b, b_row, c + i * c_row, c_row);
  }
  for (; i + 2 <= rows; i += 2) {
    product_block<2, kVectors>(depth, a + i * a_row, a_row, a_step, b, b_row, c + i * c_row, c_row);
  }
  for (; i < rows; ++i) {
    product_block<1, kVectors>(depth, a + i * a_row, a_row, a_step, b, b_row, c + i * c_row, c_row);
  }
}

// c[i][j] = sum over k of a(i, k) * b[k][j], with a(i, k) = a[i * a_row + k * a_step] and `columns` whole vectors.
inline void product(int64_t rows, int64_t columns, int64_t depth, const float *a, int64_t a_row, int64_t a_step,
                    const float *b, int64_t b_row, float *c, int64_t c_row) {
  int64_t j = 0;
#ifdef MSG_MS_MANY_REGISTERS
  for (; j + 4 * kLanes <= columns; j += 4 * kLanes) {
    product_columns<4>(rows, depth, a, a_row, a_step, b + j, b_row, c + j, c_row);
  }
#endif
  for (; j + 2 * kLanes <= columns; j += 2 * kLanes) {
    product_columns<2>(rows, depth, a, a_row, a_step, b + j, b_row, c + j, c_row);
  }
  for (; j < columns; j += kLanes) product_columns<1>(rows, depth, a, a_row, a_step, b + j, b_row, c + j, c_row);
}

}  // namespace msg_ms
