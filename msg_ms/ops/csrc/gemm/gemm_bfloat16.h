// GEMM in bfloat16 on all threads: the product of rounded rows with a packed weight, in tiles of single precision.
//
// The tiles never reach main memory: the bias is added to each one in the registers, and it is rounded to the next
// product's rows or added to the residual stream. Guarantees as in gemm.h.
#pragma once

#include "base/kernel.h"
#include "gemm/micro_kernel_bfloat16.h"

namespace msg_ms {

// Whether the library was compiled with the instructions of bfloat16 and this processor has them.
bool has_bfloat16();

// Rows of bfloat16 numbers in pairs. Rows that are a multiple of 4 KB apart would compete for the same cache lines.
class BFloat16Rows {
 public:
  BFloat16Rows(int64_t rows, int64_t depth)
      : pairs(pair_count(depth)), stride(round_up(pairs, 16) | 16), workspace_(rows * stride) {
    for (int64_t i = 0; depth % 2 != 0 && i < rows; ++i) *at(i, depth) = 0;
  }

  const float *row(int64_t i) const { return workspace_ + i * stride; }

  // Entry (i, column), to be written. A zero completes the last pair of an odd depth.
  BFloat16 *at(int64_t i, int64_t column) const {
    return reinterpret_cast<BFloat16 *>(workspace_ + i * stride) + column;
  }

  const int64_t pairs, stride;

 private:
  const Workspace workspace_;
};

// Round n floats into row i.
inline void round_row(const float *from, int64_t n, const BFloat16Rows &to, int64_t i) {
  for_each_vector(n, [&](int64_t c, int64_t lanes) { store_rounded(to.at(i, c), load_lanes(from + c, lanes), lanes); });
}

// Pack the weight (columns, depth) into panels of pairs. `to` has room for the pairs of a row times columns rounded up
// to
// 64. Zeros complete an odd depth and the last panel.
void pack_bfloat16(int64_t depth, int64_t columns, const float *weight, float *to);

// The use of entry (i, j) of the product.
struct ProductTarget {
  enum Kind {
    kStore,     // `to` = entry
    kResidual,  // `to` = addend + entry + bias
    kRound,     // `rounded` = entry + bias
    kGelu,      // `rounded` = gelu(entry + bias)
  };

  Kind kind;
  const float *bias = nullptr;  // by column
  const BFloat16Rows *rounded = nullptr;
  float *to = nullptr;  // row i at i * stride, as in `addend`, which may be the same
  const float *addend = nullptr;
  int64_t stride = 0;
};

// Multiply `rows` rows by a packed weight.
void gemm_bfloat16(int64_t rows, int64_t columns, const BFloat16Rows &a, const float *packed,
                   const ProductTarget &target);

}  // namespace msg_ms
