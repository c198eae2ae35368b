// Layer normalisation of a product's result and its bias, and its gradient; see layer_norm.py.

#include "norm.h"

#include <vector>

#include "kernel.h"

// x (rows, C), bias, gamma, beta (C,) -> normalised x + bias (rows, C)
MSG_MS_KERNEL(layer_norm) {
  using namespace msg_ms;
  const int64_t rows = shapes[0][0], n = shapes[0][1];
  const float *x = data(params, 0), *bias = data(params, 1), *gamma = data(params, 2), *beta = data(params, 3);
  float *y = data(params, 4);
  parallel_for(rows, kLeastElements / n + 1, [&](int, int64_t begin, int64_t end) {
    std::vector<float> sum(n);
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t c = 0; c < n; ++c) sum[c] = x[row * n + c] + bias[c];
      normalise(sum.data(), gamma, beta, n, y + row * n);
    }
  });
  return 0;
}

// x, bias, gamma, the result's gradient -> gradients of x, bias, gamma, beta
MSG_MS_KERNEL(layer_norm_grad) {
  using namespace msg_ms;
  const int64_t rows = shapes[0][0], n = shapes[0][1];
  const float *x = data(params, 0), *bias = data(params, 1), *gamma = data(params, 2), *dy = data(params, 3);
  float *dx = data(params, 4);
  const int parts = threads();
  Buffer sums(parts * 3 * n);
  parallel_for(rows, kLeastElements / n + 1, [&](int part, int64_t begin, int64_t end) {
    std::vector<float> sum(n);
    float *dbias = sums + part * 3 * n, *dgamma = dbias + n, *dbeta = dgamma + n;
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t c = 0; c < n; ++c) sum[c] = x[row * n + c] + bias[c];
      float *to = dx + row * n;
      normalise_grad(sum.data(), dy + row * n, gamma, n, to, dgamma, dbeta);
      for (int64_t c = 0; c < n; ++c) dbias[c] += to[c];
    }
  });
  std::vector<float> total(3 * n);
  add_parts(sums, parts, 3 * n, total.data());
  for (int i = 0; i < 3; ++i) std::memcpy(data(params, 5 + i), total.data() + i * n, n * sizeof(float));
  return 0;
}
