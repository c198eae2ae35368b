// Large matrix products on all threads: c = a b, with the result handed on tile by tile while it is in the cache.
//
// A tile of c stays in registers for hundreds of steps. Its part of b is laid out for it just before, in the second-level
// cache, so that weights are taken as they are: laying them out costs a few percent where a product has 50 rows, less
// where it has more. MindSpore's MatMul lays them out in memory at every call, and its results can't be handed on.
#pragma once

#include <functional>

#include "kernel.h"

namespace msg_ms {

// Entry (i, j) is data[i * row + j * column]. What is multiplied more than once may be laid out beforehand (LaidOut).
struct Matrix {
  const float *data;
  int64_t row, column;
  const float *laid_out = nullptr;
  bool strassen = false;  // laid out for Strassen's product

  // Whether it can be the right side of so many rows.
  bool takes(int64_t rows) const { return !strassen || rows % 2 == 0; }
};

inline Matrix matrix(const float *data, int64_t columns) { return {data, columns, 1}; }
inline Matrix transposed(const float *data, int64_t columns) { return {data, 1, columns}; }

// The right side of products, (depth, columns), as tiles take it: `to` has room for depth times columns rounded up to 64.
void lay_out(int64_t depth, int64_t columns, Matrix b, float *to);

// The same for Strassen's product (see strassen.cc), which takes even numbers of rows, columns and steps: `to` has room for
// strassen_size.
void lay_out_strassen(int64_t depth, int64_t columns, Matrix b, float *to);
inline int64_t strassen_size(int64_t depth, int64_t columns) { return 7 * (depth / 2) * round_up(columns / 2, 64); }

// What either gave, which its size tells.
inline Matrix laid_out(const float *data, int64_t size, int64_t depth, int64_t columns) {
  return {nullptr, 0, 0, data, size == strassen_size(depth, columns)};
}

// For who writes a right side so at once: panels of so many columns, one after the other, (depth, width) each.
int64_t panel_width(int64_t columns);
inline Matrix in_panels(const float *data) { return {nullptr, 0, 0, data}; }

// A right side that is laid out for as long as this lives, if `many` products are to take it.
class LaidOut {
 public:
  LaidOut(bool many, int64_t depth, int64_t columns, Matrix b);

  operator Matrix() const { return matrix_; }

 private:
  Matrix matrix_;
  Memory data_;
};

// Called once for every tile of c when it is complete, by the thread `part`; tiles are a few rows of some columns.
using Finish = std::function<void(int part, int64_t row, int64_t rows, int64_t column, int64_t columns)>;

// c (rows, columns) = a (rows, depth) b (depth, columns), or added to c.
void product(int64_t rows, int64_t columns, int64_t depth, Matrix a, Matrix b, float *c, const Finish &finish = nullptr,
             bool add = false);

}  // namespace msg_ms
