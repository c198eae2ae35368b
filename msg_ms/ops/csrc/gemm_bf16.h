// GEMM in bfloat16 on all threads: the product of rounded rows with a packed weight, in tiles of single precision.
//
// The tiles never reach main memory: a function receives each one while it is in the first-level cache, adds the bias, and
// rounds it to the next product's rows or adds it to the residual stream. Guarantees as in gemm.h.
#pragma once

#include <functional>

#include "kernel.h"
#include "micro_kernel_bf16.h"

namespace msg_ms {

// Whether this processor has the instructions for NativeBFloat16, and the library was compiled with them.
bool has_bfloat16();

// Rows of bfloat16 numbers in pairs. Rows that are a multiple of 4 KB apart would compete for the same cache lines.
class HalfRows {
 public:
  HalfRows(int64_t rows, int64_t depth)
      : pairs(pair_count(depth)), stride(round_up(pairs, 16) | 16), depth_(depth), workspace_(rows * stride) {}

  const float *row(int64_t i) const { return workspace_ + i * stride; }

  // Entry (i, column), to be written. The last pair of an odd depth must be completed by a zero, see complete().
  BFloat16 *at(int64_t i, int64_t column) const {
    return reinterpret_cast<BFloat16 *>(workspace_ + i * stride) + column;
  }
  void complete(int64_t i) const {
    if (depth_ % 2 != 0) *at(i, depth_) = 0;
  }

  const int64_t pairs, stride;

 private:
  const int64_t depth_;
  const Workspace workspace_;
};

// Round n floats into row i.
template <typename Arithmetic>
inline void round_row(const float *from, int64_t n, const HalfRows &to, int64_t i) {
  for_each_vector(n, [&](int64_t c, int64_t lanes) {
    store_rounded<Arithmetic>(to.at(i, c), load_lanes(from + c, lanes), lanes);
  });
  to.complete(i);
}

// Pack the weight (columns, depth), whose entry (j, k) is weight[j * row_stride + k]: panels of pairs. `to` has room for
// packed_bf16_size(). Zeros complete an odd depth and the last panel.
void pack_bf16(int64_t depth, int64_t columns, const float *weight, float *to);
inline int64_t packed_bf16_size(int64_t depth, int64_t columns) { return pair_count(depth) * round_up(columns, 64); }

// A finished tile of the product: rows [row, row + rows), columns [column, column + columns); entry (i, j) of the tile is
// data[i * stride + j]. `thread` computed it.
struct FinishedTile {
  int thread;
  int64_t row, rows, column, columns;
  const float *data;
  int64_t stride;
};
using TileFunction = std::function<void(const FinishedTile &)>;

// Multiply `rows` rows, from row `first`, by a packed weight and call `finish` for each tile.
template <typename Arithmetic>
void gemm_bf16(int64_t rows, int64_t columns, const HalfRows &a, int64_t first, const float *packed,
               const TileFunction &finish);

}  // namespace msg_ms
