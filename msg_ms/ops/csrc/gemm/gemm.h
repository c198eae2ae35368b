// Single-precision GEMM on all threads: c = a b, with an epilogue on each finished tile while it is in the cache.
//
// A tile of c stays in registers for hundreds of steps of the loop over k. The panel of b that it needs is packed just
// before, into the second-level cache, so weights are used as they are stored. Packing costs a few percent for 50 rows
// and less for more. MindSpore's MatMul packs into main memory at every call, and has no epilogue.
//
// Guarantees: equal calls with equal numbers of threads return equal bits; a NaN or an infinity in a or b reaches c.
// Reference: Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008.
#pragma once

#include "base/kernel.h"
#include "gemm/matrix.h"
#include "gemm/strassen.h"

namespace msg_ms {

// Pack the right-hand side b (depth, columns) into panels. `to` has room for depth times columns rounded up to 64.
void pack(int64_t depth, int64_t columns, Matrix b, float *to);

// Wrap the output of pack() or pack_strassen(); `size` shows which of the two it is.
inline Matrix packed_matrix(const float *data, int64_t size, int64_t depth, int64_t columns) {
  return {nullptr, 0, 0, data, size == strassen_size(depth, columns)};
}

// For callers that write a packed right-hand side themselves: (depth, panel_width) per panel, one panel after the
// other.
int64_t panel_width(int64_t columns);
inline Matrix packed_panels(const float *data) { return {nullptr, 0, 0, data}; }

// A right-hand side for several GEMMs: packed for the lifetime of this object if `packed`, else b itself.
class SharedMatrix {
 public:
  SharedMatrix(bool packed, int64_t depth, int64_t columns, Matrix b);

  operator Matrix() const { return matrix_; }

 private:
  Matrix matrix_;
  Workspace workspace_;
};

// c (rows, columns) = a (rows, depth) b (depth, columns), or c += a b if `accumulate`.
void gemm(int64_t rows, int64_t columns, int64_t depth, Matrix a, Matrix b, float *c,
          const Epilogue &epilogue = nullptr, bool accumulate = false);

// The same in bfloat16: entries of a and b are pairs of numbers (micro_kernel_bfloat16.h), `pairs` along the depth.
void gemm_pairs(int64_t rows, int64_t columns, int64_t pairs, Matrix a, Matrix b, float *c,
                const Epilogue &epilogue = nullptr, bool accumulate = false);

}  // namespace msg_ms
