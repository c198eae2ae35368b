// Kernels of the layer normalization of x + bias, and its gradient; see layer_norm.py.

#include "base/layer_norm.h"

#include <vector>

#include "base/kernel.h"

// x (rows, C), bias, gamma, beta (C,) -> normalized x + bias (rows, C)
MSG_MS_KERNEL(layer_norm) {
  using namespace msg_ms;
  const int64_t rows = shapes[0][0], n = shapes[0][1];
  const float *x = data(params, 0), *bias = data(params, 1), *gamma = data(params, 2), *beta = data(params, 3);
  float *y = data(params, 4);
  parallel_for(rows, kMinElements / n + 1, [&](int, int64_t begin, int64_t end) {
    for_rows_at_once(begin, end, [&](int64_t i, auto count) {
      normalize_rows<count>(x + i * n, n, bias, gamma, beta, n,
                            [&](int r, int64_t c, int64_t lanes, Vec value)
                              MSG_MS_INLINE { store_lanes(y + (i + r) * n + c, value, lanes); });
    });
  });
  return 0;
}

// x (rows, C), bias, gamma (C,), gradient of the output (rows, C) -> gradients of x, bias, gamma, beta
MSG_MS_KERNEL(layer_norm_grad) {
  using namespace msg_ms;
  const int64_t rows = shapes[0][0], n = shapes[0][1];
  const float *x = data(params, 0), *bias = data(params, 1), *gamma = data(params, 2), *dy = data(params, 3);
  float *dx = data(params, 4);
  const int threads = num_threads();
  ZeroedWorkspace partial_sums(threads * 3 * n);
  parallel_for(rows, kMinElements / n + 1, [&](int thread, int64_t begin, int64_t end) {
    std::vector<float> sum(n);
    float *dbias = partial_sums + thread * 3 * n, *dgamma = dbias + n, *dbeta = dgamma + n;
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t c = 0; c < n; ++c) sum[c] = x[row * n + c] + bias[c];
      float *dx_row = dx + row * n;
      normalize_row_grad(sum.data(), dy + row * n, gamma, n, dx_row, dgamma, dbeta);
      for (int64_t c = 0; c < n; ++c) dbias[c] += dx_row[c];
    }
  });
  std::vector<float> total(3 * n);
  add_partial_sums(partial_sums, threads, 3 * n, total.data());
  for (int i = 0; i < 3; ++i) std::memcpy(data(params, 5 + i), total.data() + i * n, n * sizeof(float));
  return 0;
}
