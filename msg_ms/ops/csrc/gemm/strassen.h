// Strassen's algorithm for c = a b: seven products of quadrants in place of eight.
//
// It needs even numbers of rows, columns and depth. b is packed with the combinations of its quadrants.
//
// Guarantees: one level of recursion only, so the result differs from gemm() by rounding, about 1e-6 of the largest
// entry. A NaN or an infinity in a row of a reaches that row of c and its neighbour.
// Reference: Strassen, "Gaussian elimination is not optimal", 1969.
#pragma once

#include "base/vector.h"
#include "gemm/matrix.h"

namespace msg_ms {

// Return the number of floats of a packed right-hand side b (depth, columns).
inline int64_t strassen_size(int64_t depth, int64_t columns) { return 7 * (depth / 2) * round_up(columns / 2, 64); }

// Pack b; `to` has room for strassen_size().
void pack_strassen(int64_t depth, int64_t columns, Matrix b, float *to);

// c (rows, columns) = a (rows, depth) b (depth, columns) for b packed by pack_strassen().
void strassen_gemm(int64_t rows, int64_t columns, int64_t depth, Matrix a, const float *b, float *c,
                   const Epilogue &epilogue);

}  // namespace msg_ms
