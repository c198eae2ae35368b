// Kernels of x w^T, its gradients, and the packing of w; see matmul.py and packed.py.

#include "gemm/products.h"

namespace msg_ms {
namespace {

using PackFunction = void (*)(int64_t depth, int64_t columns, Matrix b, float *to);

// Pack a weight (out, in) by the given function; padding becomes zeros.
void pack_weight_by(PackFunction function, void **params, int *dims, int64_t **shapes) {
  const int64_t out = shapes[0][0], in = shapes[0][1];
  std::memset(data(params, 1), 0, size(shapes[1], dims[1]) * sizeof(float));
  function(in, out, transposed(data(params, 0), in), data(params, 1));
}

// x (rows, in), weight (out, in) -> (rows, out)
template <typename Products>
void multiply(void **params, int64_t **shapes) {
  const int64_t rows = shapes[0][0], in = shapes[0][1], out = shapes[1][0];
  const RowOperand<Products> x(data(params, 0), rows, in), weight(data(params, 1), out, in);
  Products::multiply(rows, out, in, x.left(), weight.right(), data(params, 2));
}

// weight (out, in), gradient of the output (rows, out) -> gradient of x (rows, in)
template <typename Products>
void multiply_grad_x(void **params, int64_t **shapes) {
  const int64_t out = shapes[0][0], in = shapes[0][1], rows = shapes[1][0];
  const RowOperand<Products> dy(data(params, 1), rows, out);
  const ColumnOperand<Products> weight(data(params, 0), out, in);
  Products::multiply(rows, in, out, dy.left(), weight.right(), data(params, 2));
}

// x (rows, in), gradient of the output (rows, out) -> gradient of the weight (out, in)
template <typename Products>
void multiply_grad_weight(void **params, int64_t **shapes) {
  const int64_t rows = shapes[0][0], in = shapes[0][1], out = shapes[1][1];
  const ColumnOperand<Products> x(data(params, 0), rows, in), dy(data(params, 1), rows, out);
  Products::multiply(out, in, rows, dy.left(), x.right(), data(params, 2));
}

}  // namespace
}  // namespace msg_ms

MSG_MS_KERNEL(matmul) {
  msg_ms::multiply<msg_ms::SingleProducts>(params, shapes);
  return 0;
}

MSG_MS_KERNEL(matmul_grad_x) {
  msg_ms::multiply_grad_x<msg_ms::SingleProducts>(params, shapes);
  return 0;
}

MSG_MS_KERNEL(matmul_grad_weight) {
  msg_ms::multiply_grad_weight<msg_ms::SingleProducts>(params, shapes);
  return 0;
}

// The same with operands rounded to float16 or bfloat16.
MSG_MS_KERNEL(rounded_matmul_float16) {
  msg_ms::multiply<msg_ms::Float16Products>(params, shapes);
  return 0;
}

MSG_MS_KERNEL(rounded_matmul_grad_x_float16) {
  msg_ms::multiply_grad_x<msg_ms::Float16Products>(params, shapes);
  return 0;
}

MSG_MS_KERNEL(rounded_matmul_grad_weight_float16) {
  msg_ms::multiply_grad_weight<msg_ms::Float16Products>(params, shapes);
  return 0;
}

MSG_MS_KERNEL(rounded_matmul_bfloat16) {
  msg_ms::multiply<msg_ms::BFloat16Products>(params, shapes);
  return 0;
}

MSG_MS_KERNEL(rounded_matmul_grad_x_bfloat16) {
  msg_ms::multiply_grad_x<msg_ms::BFloat16Products>(params, shapes);
  return 0;
}

MSG_MS_KERNEL(rounded_matmul_grad_weight_bfloat16) {
  msg_ms::multiply_grad_weight<msg_ms::BFloat16Products>(params, shapes);
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
