// Kernels of the MLP branch, x + drop_path_scale * (gelu(LayerNorm(x) w1^T + b1) w2^T + b2), and its gradients; see
// branches.py. Rows are processed in chunks, so that the activations between the two GEMMs stay in the cache; see
// chunks.h.

#include "attention/branch.h"
#include "attention/gradients.h"
#include "attention/normalization.h"
#include "attention/packed_blocks.h"
#include "attention/residual.h"
#include "base/gelu.h"
#include "gemm/gemm.h"

namespace msg_ms {
namespace {

enum Input { kX, kGamma, kBeta, kW1, kB1, kW2, kB2, kDropPathScale, kInputs };

// Return the epilogue x = gelu(x + bias). Unless it is null, `saved` receives x + bias.
auto gelu_epilogue(const float *bias, int64_t hidden, float *x, float *saved) {
  return [=](int, int64_t row, int64_t rows, int64_t column, int64_t columns) {
    for (int64_t i = row; i < row + rows; ++i) {
      if (saved != nullptr) prefetch<true>(saved + (i + rows) * hidden + column, columns);  // for the next tile
      for_each_vector(columns, [&](int64_t c, int64_t n) {
        const int64_t at = i * hidden + column + c;
        const Vec in = load_lanes(x + at, n) + load_lanes(bias + column + c, n);
        if (saved != nullptr) store_lanes(saved + at, in, n);
        store_lanes(x + at, gelu(in), n);
      });
    }
  };
}

// Return the branch whose drop_path_scale is the second row of input number i.
Branch mlp_branch_of(void **params, int64_t **shapes, int i) {
  return {shapes[kX], data(params, kX), data(params, i) + shapes[i][1], shapes[i][1]};
}

struct Layers {
  Matrix w1, w2;
  const float *b1, *b2;
  int64_t hidden;
};

void forward(const Branch &branch, const float *gamma, const float *beta, const Layers &layers, float *out,
             float *saved) {
  const int64_t channels = branch.channels, hidden = layers.hidden;
  // Strassen's algorithm needs even numbers of rows.
  const int64_t unit = branch.count % 2 == 0 ? 2 : 1;
  for_each_chunk(branch.count, hidden, unit, branch.chunk_parallel(), [&](int64_t first, int64_t n) {
    Workspace normalized(n * channels), activations(n * hidden);
    normalize(branch, first, n, gamma, beta, normalized);
    gemm(n, hidden, channels, matrix(normalized, channels), layers.w1, activations,
         gelu_epilogue(layers.b1, hidden, activations, saved == nullptr ? nullptr : saved + first * hidden));
    gemm(n, channels, hidden, matrix(activations, hidden), layers.w2, out + first * channels,
         residual_epilogue(branch, first, layers.b2, out));
  });
}

void forward(void **params, int64_t **shapes, float *out, float *saved) {
  const Branch branch = mlp_branch_of(params, shapes, kDropPathScale);
  const int64_t channels = branch.channels, hidden = shapes[kW1][0];
  const bool packs = branch.chunk_parallel();
  const SharedMatrix w1(packs, channels, hidden, transposed(data(params, kW1), channels));
  const SharedMatrix w2(packs, hidden, channels, transposed(data(params, kW2), hidden));
  const Layers layers{w1, w2, data(params, kB1), data(params, kB2), hidden};
  forward(branch, data(params, kGamma), data(params, kBeta), layers, out, saved);
}

// Return the epilogue that replaces d, the gradient of gelu(saved), by the gradient of `saved` (count, hidden). It also
// writes gelu(saved) to `activations` as packed panels, whose width is that of a tile, and adds column sums to `sums`.
auto gelu_grad_epilogue(const float *saved, int64_t count, int64_t hidden, float *d, float *activations, float *sums) {
  const int64_t width = panel_width(hidden);
  return [=](int thread, int64_t row, int64_t rows, int64_t column, int64_t columns) {
    float *total = sums + thread * hidden + column, *panel = activations + column * count;
    for (int64_t i = row; i < row + rows; ++i) {
      prefetch(saved + (i + rows) * hidden + column, columns);  // for the next tile
      for_each_vector(columns, [&](int64_t c, int64_t n) {
        const int64_t at = i * hidden + column + c;
        const Vec in = load_lanes(saved + at, n);
        const Vec cdf = normal_cdf(in);
        const Vec din = load_lanes(d + at, n) * (cdf + in * normal_pdf(in));
        store_lanes(panel + i * width + c, in * cdf, n);
        store_lanes(d + at, din, n);
        store_lanes(total + c, load_lanes(total + c, n) + din, n);
      });
    }
  };
}

void backward(void **params, int64_t **shapes) {
  const Branch branch = mlp_branch_of(params, shapes, 6);  // in the order of the kernel's comment below
  const float *gamma = data(params, 1), *beta = data(params, 2), *w1 = data(params, 3), *w2 = data(params, 4);
  const float *saved = data(params, 5), *dout = data(params, 7);
  float *dx = data(params, 8), *dgamma = data(params, 9), *dbeta = data(params, 10);
  float *dw1 = data(params, 11), *db1 = data(params, 12), *dw2 = data(params, 13), *db2 = data(params, 14);
  const int64_t channels = branch.channels, hidden = shapes[3][0];
  // A weight's gradient per thread is worth it while it is small beside the activations.
  const bool chunk_parallel = branch.chunk_parallel() && 2 * channels * num_threads() <= branch.count;
  const SharedMatrix shared_w2(chunk_parallel, channels, hidden, matrix(w2, hidden));
  const SharedMatrix shared_w1(chunk_parallel, hidden, channels, matrix(w1, channels));
  VectorGradient gamma_grad(channels, dgamma), beta_grad(channels, dbeta), b1_grad(hidden, db1), b2_grad(channels, db2);
  WeightGradient w1_grad(hidden, channels, dw1, chunk_parallel), w2_grad(channels, hidden, dw2, chunk_parallel);
  for_each_chunk(branch.count, 2 * hidden, 1, chunk_parallel, [&](int64_t first, int64_t n) {
    const int64_t offset = first * channels;
    Workspace normalized(n * channels), scaled(n * channels), dnormalized(n * channels), dhidden(n * hidden);
    Workspace activations(n * round_up(hidden, panel_width(hidden)));
    normalize(branch, first, n, gamma, beta, normalized);
    const float *d = branch_gradient(branch, first, n, dout + offset, scaled, b2_grad);
    gemm(n, hidden, channels, matrix(d, channels), shared_w2, dhidden,
         gelu_grad_epilogue(saved + first * hidden, n, hidden, dhidden, activations, b1_grad.of_all_threads()));
    w2_grad.add(n, transposed(d, channels), packed_panels(activations));
    w1_grad.add(n, transposed(dhidden, hidden), matrix(normalized, channels));
    gemm(n, channels, hidden, matrix(dhidden, hidden), shared_w1, dnormalized);
    input_gradient(branch, first, n, dout + offset, dnormalized, gamma, dx + offset, gamma_grad, beta_grad);
  });
}

}  // namespace

bool packed_mlp_branch(const Branch &branch, const BlockParameters &p, float *out) {
  const int64_t channels = branch.channels, hidden = p.b1.size;
  const Matrix w1 = packed_matrix(p.w1.data, p.w1.size, channels, hidden);
  const Matrix w2 = packed_matrix(p.w2.data, p.w2.size, hidden, channels);
  if (!w1.accepts_rows(branch.count) || !w2.accepts_rows(branch.count)) return false;
  forward(branch, p.mlp_gamma, p.mlp_beta, {w1, w2, p.b1, p.b2, hidden}, out, nullptr);
  return true;
}

}  // namespace msg_ms

// x (regions, windows, tokens, C), gamma, beta (C,), w1 (H, C), b1 (H,), w2 (C, H), b2 (C,), drop_path_scale (2,
// images) or (2, 1), of which row 1 is used -> output, as x
MSG_MS_KERNEL(mlp_branch) {
  msg_ms::forward(params, shapes, msg_ms::data(params, msg_ms::kInputs), nullptr);
  return 0;
}

// the same inputs -> output; saved for backward: input of the activation function (rows, H)
MSG_MS_KERNEL(mlp_branch_train) {
  using namespace msg_ms;
  forward(params, shapes, data(params, kInputs), data(params, kInputs + 1));
  return 0;
}

// x, gamma, beta, w1, w2, saved input of the activation function, drop_path_scale, gradient of the output
// -> gradients of x, gamma, beta, w1, b1, w2, b2
MSG_MS_KERNEL(mlp_branch_grad) {
  msg_ms::backward(params, shapes);
  return 0;
}
