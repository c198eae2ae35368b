// GELU of x + bias, exact (erf), and its gradients; see bias_gelu.py.

#include "kernel.h"

namespace msg_ms {
namespace {

constexpr int64_t kLeast = 1 << 13;  // elements that are worth a thread

inline Vec gelu(Vec x) {
  Vec distribution, density;
  normal(x, distribution, density);
  return x * distribution;
}

inline Vec gelu_slope(Vec x) {
  Vec distribution, density;
  normal(x, distribution, density);
  return distribution + x * density;
}

}  // namespace
}  // namespace msg_ms

// x (rows, C), bias (C,) -> (rows, C)
MSG_MS_KERNEL(bias_gelu) {
  using namespace msg_ms;
  const float *x = data(params, 0), *bias = data(params, 1);
  float *y = data(params, 2);
  const int64_t rows = shapes[0][0], n = shapes[0][1], whole = n / kLanes * kLanes;
  parallel_for(rows, kLeast / n + 1, [&](int, int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float *from = x + row * n;
      float *to = y + row * n;
      for (int64_t c = 0; c < whole; c += kLanes) store(to + c, gelu(load(from + c) + load(bias + c)));
      if (whole < n) {
        store_part(to + whole, gelu(load_part(from + whole, n - whole) + load_part(bias + whole, n - whole)), n - whole);
      }
    }
  });
  return 0;
}

// x, bias, the result's gradient -> gradients of x and bias
MSG_MS_KERNEL(bias_gelu_grad) {
  using namespace msg_ms;
  const float *x = data(params, 0), *bias = data(params, 1), *dy = data(params, 2);
  float *dx = data(params, 3), *dbias = data(params, 4);
  const int64_t rows = shapes[0][0], n = shapes[0][1], whole = n / kLanes * kLanes;
  Buffer sums(threads() * n);
  parallel_for(rows, kLeast / n + 1, [&](int part, int64_t begin, int64_t end) {
    float *total = sums + part * n;
    for (int64_t row = begin; row < end; ++row) {
      const float *from = x + row * n, *grad = dy + row * n;
      float *to = dx + row * n;
      for (int64_t c = 0; c < whole; c += kLanes) {
        const Vec d = load(grad + c) * gelu_slope(load(from + c) + load(bias + c));
        store(to + c, d);
        store(total + c, load(total + c) + d);
      }
      if (const int64_t rest = n - whole; rest > 0) {
        const Vec d = load_part(grad + whole, rest) * gelu_slope(load_part(from + whole, rest) + load_part(bias + whole, rest));
        store_part(to + whole, d, rest);
        store_part(total + whole, load_part(total + whole, rest) + d, rest);
      }
    }
  });
  add_parts(sums, threads(), n, dbias);
  return 0;
}
