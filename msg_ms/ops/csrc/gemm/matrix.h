// Operands of the GEMM in gemm.h and strassen.h.
#pragma once

#include <cstdint>
#include <functional>

namespace msg_ms {

// A matrix whose entry (i, j) is data[i * row_stride + j * column_stride], or a packed right-hand side.
struct Matrix {
  const float *data;
  int64_t row_stride, column_stride;
  const float *packed = nullptr;
  bool strassen = false;  // packed by pack_strassen

  // Whether a left-hand side with this number of rows can be multiplied by this matrix.
  bool accepts_rows(int64_t rows) const { return !strassen || rows % 2 == 0; }
};

inline Matrix matrix(const float *data, int64_t columns) { return {data, columns, 1}; }
inline Matrix transposed(const float *data, int64_t columns) { return {data, 1, columns}; }

// Called once for each finished tile of c, by the thread that computed it.
using Epilogue = std::function<void(int thread, int64_t row, int64_t rows, int64_t column, int64_t columns)>;

}  // namespace msg_ms
