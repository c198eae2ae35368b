// Residual sums, the shuffle of messages and layer normalisation, and their gradients; see layer_norm.py, residual.py.

#include <cmath>
#include <vector>

#include "kernel.h"

namespace msg_ms {
namespace {

constexpr int64_t kLeast = 1 << 13;  // elements that are worth a thread
constexpr float kEpsilon = 1e-5f;

struct Moments {
  float mean, inverse;  // inverse: 1 / standard deviation
};

Moments moments(const float *x, int64_t n) {
  float total = 0, squares = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t c = 0; c < n; ++c) total += x[c];
  const float mean = total / n;
#pragma omp simd reduction(+ : squares)
  for (int64_t c = 0; c < n; ++c) squares += (x[c] - mean) * (x[c] - mean);
  return {mean, 1.0f / std::sqrt(squares / n + kEpsilon)};
}

void normalise(const float *x, const float *gamma, const float *beta, int64_t n, float *y) {
  const Moments m = moments(x, n);
#pragma omp simd
  for (int64_t c = 0; c < n; ++c) y[c] = (x[c] - m.mean) * m.inverse * gamma[c] + beta[c];
}

// dx of a normalised row; adds to the gradients of gamma and beta.
void normalise_grad(const float *x, const float *dy, const float *gamma, int64_t n, float *dx, float *dgamma,
                    float *dbeta) {
  const Moments m = moments(x, n);
  float along_one = 0, along_x = 0;
#pragma omp simd reduction(+ : along_one, along_x)
  for (int64_t c = 0; c < n; ++c) {
    const float scaled = (x[c] - m.mean) * m.inverse, d = dy[c] * gamma[c];
    along_one += d;
    along_x += d * scaled;
    dgamma[c] += dy[c] * scaled;
    dbeta[c] += dy[c];
  }
  along_one /= n;
  along_x /= n;
#pragma omp simd
  for (int64_t c = 0; c < n; ++c) {
    dx[c] = m.inverse * (dy[c] * gamma[c] - along_one - (x[c] - m.mean) * m.inverse * along_x);
  }
}

// Rows of (regions, windows, tokens, channels), and where a shuffled message takes its channels from.
struct Rows {
  int64_t windows, tokens, channels, count;

  explicit Rows(const int64_t *shape)
      : windows(shape[1]), tokens(shape[2]), channels(shape[3]), count(shape[0] * shape[1] * shape[2]) {}

  bool message(int64_t row) const { return row % tokens == 0; }

  // Calls part(row, channel, to, n): n channels from there belong at `to` of the message in `row`.
  template <typename Part>
  void for_each_part(int64_t row, const Part &part) const {
    const int64_t n = channels / windows, window = row / tokens % windows, first = row - window * tokens;
    for (int64_t i = 0; i < windows; ++i) part(first + i * tokens, window * n, i * n, n);
  }
};

template <bool shuffle>
void residual_norm(void **params, int64_t **shapes) {
  const Rows rows(shapes[0]);
  const int64_t n = rows.channels, per_draw = rows.count / shapes[3][0];
  const float *x = data(params, 0), *branch = data(params, 1), *bias = data(params, 2), *keep = data(params, 3);
  const float *gamma = data(params, 4), *beta = data(params, 5);
  float *out = data(params, 6), *normal = data(params, 7);
  parallel_for(rows.count, kLeast / n + 1, [&](int, int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float kept = keep[row / per_draw];
      float *to = out + row * n;
      const auto add = [&](int64_t from, int64_t channel, int64_t at, int64_t count) {
        const float *left = x + from * n + channel, *right = branch + from * n + channel;
#pragma omp simd
        for (int64_t c = 0; c < count; ++c) to[at + c] = left[c] + kept * (right[c] + bias[channel + c]);
      };
      if (shuffle && rows.message(row)) {
        rows.for_each_part(row, add);
      } else {
        add(row, 0, 0, n);
      }
      normalise(to, gamma, beta, n, normal + row * n);
    }
  });
}

template <bool shuffle>
void residual_norm_grad(void **params, int64_t **shapes) {
  const Rows rows(shapes[0]);
  const int64_t n = rows.channels, per_draw = rows.count / shapes[1][0];
  const float *x = data(params, 0), *keep = data(params, 1), *gamma = data(params, 2);
  const float *dsum = data(params, 3), *dnormal = data(params, 4);
  float *dx = data(params, 5), *dbranch = data(params, 6);
  const int parts = threads();
  Buffer sums(parts * 3 * n);
  // The gradient of the sum where it stood after the shuffle, then back to where it came from.
  parallel_for(rows.count, kLeast / n + 1, [&](int part, int64_t begin, int64_t end) {
    float *dgamma = sums + part * 3 * n, *dbeta = dgamma + n, *dbias = dbeta + n;
    for (int64_t row = begin; row < end; ++row) {
      float *to = dx + row * n, *to_branch = dbranch + row * n;
      const float *direct = dsum + row * n, kept = keep[row / per_draw];
      normalise_grad(x + row * n, dnormal + row * n, gamma, n, to, dgamma, dbeta);
      const float counted = shuffle && rows.message(row) ? 0.0f : 1.0f;
#pragma omp simd
      for (int64_t c = 0; c < n; ++c) {
        to[c] += direct[c];
        to_branch[c] = to[c] * kept;
        dbias[c] += counted * to_branch[c];
      }
    }
  });
  if (shuffle) {
    const int64_t regions = rows.count / (rows.windows * rows.tokens), block = rows.windows * n;
    parallel_for(regions, 1, [&](int part, int64_t begin, int64_t end) {
      std::vector<float> shuffled(block);
      float *dbias = sums + part * 3 * n + 2 * n;
      for (int64_t region = begin; region < end; ++region) {
        const int64_t first = region * rows.windows * rows.tokens;
        for (int64_t i = 0; i < rows.windows; ++i) {
          std::memcpy(shuffled.data() + i * n, dx + (first + i * rows.tokens) * n, n * sizeof(float));
        }
        for (int64_t i = 0; i < rows.windows; ++i) {
          const int64_t row = first + i * rows.tokens;
          const float kept = keep[row / per_draw];
          rows.for_each_part(row, [&](int64_t from, int64_t channel, int64_t at, int64_t count) {
            const float *source = shuffled.data() + (from - first) / rows.tokens * n + channel;
            for (int64_t c = 0; c < count; ++c) {
              const float d = source[c];
              dx[row * n + at + c] = d;
              dbranch[row * n + at + c] = d * kept;
              dbias[at + c] += d * kept;
            }
          });
        }
      }
    });
  }
  std::vector<float> total(3 * n);
  add_parts(sums, parts, 3 * n, total.data());
  std::memcpy(data(params, 8), total.data(), n * sizeof(float));
  std::memcpy(data(params, 9), total.data() + n, n * sizeof(float));
  std::memcpy(data(params, 7), total.data() + 2 * n, n * sizeof(float));
}

}  // namespace
}  // namespace msg_ms

// x (rows, C), bias, gamma, beta (C,) -> normalised x + bias (rows, C)
MSG_MS_KERNEL(layer_norm) {
  using namespace msg_ms;
  const int64_t rows = shapes[0][0], n = shapes[0][1];
  const float *x = data(params, 0), *bias = data(params, 1), *gamma = data(params, 2), *beta = data(params, 3);
  float *y = data(params, 4);
  parallel_for(rows, kLeast / n + 1, [&](int, int64_t begin, int64_t end) {
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
  parallel_for(rows, kLeast / n + 1, [&](int part, int64_t begin, int64_t end) {
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

// x (regions, windows, tokens, C), branch (rows, C), bias (C,), keep (images,) or (1,), gamma, beta (C,)
// -> x + keep * (branch + bias), its normalisation: both (regions, windows, tokens, C)
MSG_MS_KERNEL(residual_norm) {
  msg_ms::residual_norm<false>(params, shapes);
  return 0;
}

MSG_MS_KERNEL(residual_shuffle_norm) {
  msg_ms::residual_norm<true>(params, shapes);
  return 0;
}

// the sum, keep, gamma, gradients of sum and normalisation -> gradients of x, branch, bias, gamma, beta
MSG_MS_KERNEL(residual_norm_grad) {
  msg_ms::residual_norm_grad<false>(params, shapes);
  return 0;
}

MSG_MS_KERNEL(residual_shuffle_norm_grad) {
  msg_ms::residual_norm_grad<true>(params, shapes);
  return 0;
}

// x (regions, windows, tokens, C), branch (rows, C), bias (C,), keep (images,) or (1,) -> x + keep * (branch + bias)
MSG_MS_KERNEL(residual) {
  using namespace msg_ms;
  const Rows rows(shapes[0]);
  const int64_t n = rows.channels, per_draw = rows.count / shapes[3][0];
  const float *x = data(params, 0), *branch = data(params, 1), *bias = data(params, 2), *keep = data(params, 3);
  float *out = data(params, 4);
  parallel_for(rows.count, kLeast / n + 1, [&](int, int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float *left = x + row * n, *right = branch + row * n, kept = keep[row / per_draw];
      float *to = out + row * n;
#pragma omp simd
      for (int64_t c = 0; c < n; ++c) to[c] = left[c] + kept * (right[c] + bias[c]);
    }
  });
  return 0;
}

// the sum's gradient (regions, windows, tokens, C), keep -> gradients of branch and bias
MSG_MS_KERNEL(residual_grad) {
  using namespace msg_ms;
  const Rows rows(shapes[0]);
  const int64_t n = rows.channels, per_draw = rows.count / shapes[1][0];
  const float *dsum = data(params, 0), *keep = data(params, 1);
  float *dbranch = data(params, 2);
  Buffer sums(threads() * n);
  parallel_for(rows.count, kLeast / n + 1, [&](int part, int64_t begin, int64_t end) {
    float *dbias = sums + part * n;
    for (int64_t row = begin; row < end; ++row) {
      const float *from = dsum + row * n, kept = keep[row / per_draw];
      float *to = dbranch + row * n;
#pragma omp simd
      for (int64_t c = 0; c < n; ++c) {
        to[c] = from[c] * kept;
        dbias[c] += to[c];
      }
    }
  });
  add_parts(sums, threads(), n, data(params, 3));
  return 0;
}
