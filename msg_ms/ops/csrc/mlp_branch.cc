// x + keep * (gelu(normalise(x) w1^T + b1) w2^T + b2) and its gradients; see branches.py.
//
// Some rows at a time, so that what lies between the two products stays in the cache.

#include "branch.h"
#include "product.h"

namespace msg_ms {
namespace {

constexpr int kInputs = 8;  // x, gamma, beta, w1, b1, w2, b2, keep

// x + bias becomes the function's result; what went in is kept in `before` where there is one.
auto gelu_of(const float *bias, int64_t hidden, float *x, float *before) {
  return [=](int, int64_t row, int64_t rows, int64_t column, int64_t columns) {
    for (int64_t i = row; i < row + rows; ++i) {
      if (before != nullptr) fetch<true>(before + (i + rows) * hidden + column, columns);  // for the next tile
      for_each_vector(columns, [&](int64_t c, int64_t n) {
        const int64_t at = i * hidden + column + c;
        const Vec in = load_lanes(x + at, n) + load_lanes(bias + column + c, n);
        if (before != nullptr) store_lanes(before + at, in, n);
        store_lanes(x + at, in * normal_distribution(in), n);
      });
    }
  };
}

// The second row of keep, which is input number i.
Branch mlp(void **params, int64_t **shapes, int i) {
  return {shapes[0], data(params, 0), data(params, i) + shapes[i][1], shapes[i][1]};
}

struct Layers {
  Matrix first, second;
  const float *bias1, *bias2;
  int64_t hidden;
};

void forward(const Branch &branch, const float *gamma, const float *beta, const Layers &layers, float *out,
             float *before) {
  const int64_t channels = branch.channels, hidden = layers.hidden;
  // Strassen's product takes rows by twos.
  branch.for_each_chunk(hidden, branch.count % 2 == 0 ? 2 : 1, branch.apart(), [&](int64_t first, int64_t n) {
    Memory normal(n * channels), inside(n * hidden);
    branch.normal(first, n, gamma, beta, normal);
    product(n, hidden, channels, matrix(normal, channels), layers.first, inside,
            gelu_of(layers.bias1, hidden, inside, before == nullptr ? nullptr : before + first * hidden));
    product(n, channels, hidden, matrix(inside, hidden), layers.second, out + first * channels,
            branch.sum(first, layers.bias2, out));
  });
}

void forward(void **params, int64_t **shapes, float *out, float *before) {
  const Branch branch = mlp(params, shapes, 7);
  const int64_t channels = branch.channels, hidden = shapes[3][0];
  const bool apart = branch.apart();
  const LaidOut first(apart, channels, hidden, transposed(data(params, 3), channels));
  const LaidOut second(apart, hidden, channels, transposed(data(params, 5), hidden));
  forward(branch, data(params, 1), data(params, 2), {first, second, data(params, 4), data(params, 6), hidden}, out, before);
}

// From the gradient of gelu(before) to that of `before`, `count` rows in place; gives gelu(before) in panels, and adds to
// the column sums. The product's tiles are as wide as a panel.
auto gelu_gradient_of(const float *before, int64_t count, int64_t hidden, float *d, float *after, float *sums) {
  const int64_t width = panel_width(hidden);
  return [=](int part, int64_t row, int64_t rows, int64_t column, int64_t columns) {
    float *total = sums + part * hidden + column, *panel = after + column * count;
    for (int64_t i = row; i < row + rows; ++i) {
      fetch(before + (i + rows) * hidden + column, columns);  // for the next tile
      for_each_vector(columns, [&](int64_t c, int64_t n) {
        const int64_t at = i * hidden + column + c;
        const Vec in = load_lanes(before + at, n);
        const Vec distribution = normal_distribution(in);
        const Vec slope = load_lanes(d + at, n) * (distribution + in * normal_density(in));
        store_lanes(panel + i * width + c, in * distribution, n);
        store_lanes(d + at, slope, n);
        store_lanes(total + c, load_lanes(total + c, n) + slope, n);
      });
    }
  };
}

void backward(void **params, int64_t **shapes) {
  const Branch branch = mlp(params, shapes, 6);
  const float *gamma = data(params, 1), *beta = data(params, 2), *w1 = data(params, 3), *w2 = data(params, 4);
  const float *before = data(params, 5), *dout = data(params, 7);
  float *dx = data(params, 8), *dgamma = data(params, 9), *dbeta = data(params, 10);
  float *dw1 = data(params, 11), *db1 = data(params, 12), *dw2 = data(params, 13), *db2 = data(params, 14);
  const int64_t channels = branch.channels, hidden = shapes[3][0];
  // Alone, every thread sums the gradients of weights for itself: worth it while those are small beside the activations.
  const bool apart = branch.apart() && 2 * channels * threads() <= branch.count;
  const LaidOut second_layer(apart, channels, hidden, matrix(w2, hidden));
  const LaidOut first_layer(apart, hidden, channels, matrix(w1, channels));
  Sums gammas(channels, dgamma), betas(channels, dbeta), biases1(hidden, db1), biases2(channels, db2);
  WeightSum weights1(hidden, channels, dw1, apart), weights2(channels, hidden, dw2, apart);
  branch.for_each_chunk(2 * hidden, 1, apart, [&](int64_t first, int64_t n) {
    const int64_t at = first * channels;
    Memory normal(n * channels), space(n * channels), dnormal(n * channels), dbefore(n * hidden);
    Memory after(n * round_up(hidden, panel_width(hidden)));
    branch.normal(first, n, gamma, beta, normal);
    const float *d = branch.gradient(first, n, dout + at, space, biases2);
    product(n, hidden, channels, matrix(d, channels), second_layer, dbefore,
            gelu_gradient_of(before + first * hidden, n, hidden, dbefore, after, biases1.parts()));
    weights2.add(n, transposed(d, channels), in_panels(after));
    weights1.add(n, transposed(dbefore, hidden), matrix(normal, channels));
    product(n, channels, hidden, matrix(dbefore, hidden), first_layer, dnormal);
    branch.normal_gradient(first, n, dout + at, dnormal, gamma, dx + at, gammas, betas);
  });
}

}  // namespace
}  // namespace msg_ms

// x (regions, windows, tokens, C), gamma, beta (C,), w1 (H, C), b1 (H,), w2 (C, H), b2 (C,), keep (2, images) or (2, 1)
// whose second row counts -> the sum, as x
MSG_MS_KERNEL(mlp_branch) {
  msg_ms::forward(params, shapes, msg_ms::data(params, msg_ms::kInputs), nullptr);
  return 0;
}

// the same -> the sum, and what goes into the activation: (rows, H)
MSG_MS_KERNEL(mlp_branch_kept) {
  using namespace msg_ms;
  forward(params, shapes, data(params, kInputs), data(params, kInputs + 1));
  return 0;
}

// x, gamma, beta, w1, w2, what went into the activation, keep, the sum's gradient
// -> gradients of x, gamma, beta, w1, b1, w2, b2
MSG_MS_KERNEL(mlp_branch_grad) {
  msg_ms::backward(params, shapes);
  return 0;
}

// x (regions, windows, tokens, C), gamma, beta (C,), w1 (H, C) as lay_out_weight gives it, b1 (H,), w2 (C, H), laid out,
// b2 (C,) -> the sum, as x
MSG_MS_KERNEL(mlp_branch_laid_out) {
  using namespace msg_ms;
  const Branch branch(shapes[0], data(params, 0), &kWhole, 1);
  const int64_t channels = shapes[0][3], hidden = shapes[4][0];
  const Matrix first = laid_out(data(params, 3), size(shapes[3], dims[3]), channels, hidden);
  const Matrix second = laid_out(data(params, 5), size(shapes[5], dims[5]), hidden, channels);
  if (!first.takes(branch.count) || !second.takes(branch.count)) return 1;
  const Layers layers{first, second, data(params, 4), data(params, 6), hidden};
  forward(branch, data(params, 1), data(params, 2), layers, data(params, 7), nullptr);
  return 0;
}
