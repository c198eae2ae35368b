// Kernels of x w^T, its gradients, and the packing of w; see matmul.py and packed.py.

#include "gemm/gemm.h"

namespace msg_ms {
namespace {

using PackFunction = void (*)(int64_t depth, int64_t columns, Matrix b, float *to);

// Pack a weight (out, in) by the given function; padding becomes zeros.
void pack_weight_by(PackFunction function, void **params, int *dims, int64_t **shapes) {
  const int64_t out = shapes[0][0], in = shapes[0][1];
  std::memset(data(params, 1), 0, size(shapes[1], dims[1]) * sizeof(float));
  function(in, out, transposed(data(params, 0), in), data(params, 1));
}

}  // namespace
}  // namespace msg_ms

// x (rows, in), weight (out, in) -> (rows, out)
MSG_MS_KERNEL(matmul) {
  using namespace msg_ms;
  const int64_t rows = shapes[0][0], in = shapes[0][1], out = shapes[1][0];
  gemm(rows, out, in, matrix(data(params, 0), in), transposed(data(params, 1), in), data(params, 2));
  return 0;
}

// weight (out, in), gradient of the output (rows, out) -> gradient of x (rows, in)
MSG_MS_KERNEL(matmul_grad_x) {
  using namespace msg_ms;
  const int64_t out = shapes[0][0], in = shapes[0][1], rows = shapes[1][0];
  gemm(rows, in, out, matrix(data(params, 1), out), matrix(data(params, 0), in), data(params, 2));
  return 0;
}

// x (rows, in), gradient of the output (rows, out) -> gradient of the weight (out, in)
MSG_MS_KERNEL(matmul_grad_weight) {
  using namespace msg_ms;
  const int64_t rows = shapes[0][0], in = shapes[0][1], out = shapes[1][1];
  gemm(out, in, rows, transposed(data(params, 1), out), matrix(data(params, 0), in), data(params, 2));
  return 0;
}

// weight (out, in) -> packed weight (in * out rounded up to 64,)
MSG_MS_KERNEL(pack_weight) {
  msg_ms::pack_weight_by(msg_ms::pack, params, dims, shapes);
  return 0;
}

// weight (out, in), both even -> weight packed for Strassen's algorithm (7 * in / 2 * out / 2 rounded up to 64,)
MSG_MS_KERNEL(pack_weight_strassen) {
  msg_ms::pack_weight_by(msg_ms::pack_strassen, params, dims, shapes);
  return 0;
}

// x (rows, in), weight packed by either kernel above -> (rows, out)
MSG_MS_KERNEL(matmul_packed) {
  using namespace msg_ms;
  const int64_t rows = shapes[0][0], in = shapes[0][1], out = shapes[2][1];
  const Matrix weight = packed_matrix(data(params, 1), size(shapes[1], dims[1]), in, out);
  if (!weight.accepts_rows(rows)) return 1;
  gemm(rows, out, in, matrix(data(params, 0), in), weight, data(params, 2));
  return 0;
}
