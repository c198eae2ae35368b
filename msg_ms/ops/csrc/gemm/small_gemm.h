// GEMM of small matrices on one thread, for attention heads: no packing, rows padded to whole vectors by the caller.
#pragma once

#include "gemm/micro_kernel.h"

namespace msg_ms {

// c (rows, columns) = a (rows, depth) b (depth, columns); `columns` is a multiple of kLanes, the columns of b and c are
// contiguous. Entry (i, k) of a is a[i * a_row_stride + k * a_column_stride].
inline void small_gemm(int64_t rows, int64_t columns, int64_t depth, const float *a, int64_t a_row_stride,
                       int64_t a_column_stride, const float *b, int64_t b_row_stride, float *c, int64_t c_row_stride) {
  int64_t j = 0;
  const auto run_panels = [&](auto vectors) {
    constexpr int64_t kWidth = vectors * kLanes;
    for (; j + kWidth <= columns; j += kWidth) {
      multiply_panel<vectors>(rows, depth, a, a_row_stride, a_column_stride, b + j, b_row_stride, NoPrefetch(),
                              [&](int64_t i, const auto &tile) MSG_MS_INLINE {
                                store_tile<false>(tile, {nullptr, 0, c + i * c_row_stride + j, c_row_stride, kWidth});
                              });
    }
  };
  run_panels(std::integral_constant<int, kMaxTileVectors>());
  run_panels(std::integral_constant<int, 2>());
  run_panels(std::integral_constant<int, 1>());
}

}  // namespace msg_ms
