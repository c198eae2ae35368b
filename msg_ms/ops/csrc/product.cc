// x w^T and its gradients; see product.py.

#include "product.h"

// x (rows, in), w (out, in) -> (rows, out)
MSG_MS_KERNEL(product) {
  using namespace msg_ms;
  const int64_t rows = shapes[0][0], in = shapes[0][1], out = shapes[1][0];
  product(rows, out, in, matrix(data(params, 0), in), transposed(data(params, 1), in), data(params, 2));
  return 0;
}

// w (out, in), the result's gradient (rows, out) -> gradient of x
MSG_MS_KERNEL(product_grad_rows) {
  using namespace msg_ms;
  const int64_t out = shapes[0][0], in = shapes[0][1], rows = shapes[1][0];
  product(rows, in, out, matrix(data(params, 1), out), matrix(data(params, 0), in), data(params, 2));
  return 0;
}

// x (rows, in), the result's gradient (rows, out) -> gradient of w
MSG_MS_KERNEL(product_grad_weight) {
  using namespace msg_ms;
  const int64_t rows = shapes[0][0], in = shapes[0][1], out = shapes[1][1];
  product(out, in, rows, transposed(data(params, 1), out), matrix(data(params, 0), in), data(params, 2));
  return 0;
}
