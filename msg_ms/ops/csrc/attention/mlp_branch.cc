// Kernels of the MLP branch, x + drop_path_scale * (gelu(LayerNorm(x) w1^T + b1) w2^T + b2), and its gradients; see
// branches.py. Rows are processed in chunks, so that the activations between the two GEMMs stay in the cache; see
// chunks.h.

#include "attention/branch.h"
#include "attention/gradients.h"
#include "attention/normalization.h"
#include "attention/packed_blocks.h"
#include "attention/residual.h"
#include "base/gelu.h"
#include "gemm/products.h"

namespace msg_ms {
namespace {

enum Input { kX, kGamma, kBeta, kW1, kB1, kW2, kB2, kDropPathScale, kInputs };

// Return the epilogue that writes gelu(x + bias). Unless it is null, `saved` receives x + bias.
template <typename Products>
auto gelu_epilogue(const float *bias, int64_t hidden, const float *x, RowWriter<Products> activations, float *saved) {
  const int64_t saved_stride = Products::saved_stride(hidden);
  return [=](int, int64_t row, int64_t rows, int64_t column, int64_t columns) {
    for (int64_t i = row; i < row + rows; ++i) {
      float *const saved_row = saved + i * saved_stride;
      if (saved != nullptr) {
        const int64_t part = saved_stride * column / hidden;
        prefetch<true>(saved_row + rows * saved_stride + part, saved_stride * columns / hidden);  // for the next tile
      }
      for_each_vector(columns, [&](int64_t c, int64_t n) {
        const Vec in = load_lanes(x + i * hidden + column + c, n) + load_lanes(bias + column + c, n);
        if (saved != nullptr) Products::save(saved_row, column + c, n, in);
        activations.store(i, column + c, n, gelu(in));
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

template <typename Products>
void forward(const Branch &branch, const float *gamma, const float *beta, const Layers &layers, float *out,
             float *saved) {
  const int64_t channels = branch.channels, hidden = layers.hidden;
  // Strassen's algorithm needs even numbers of rows.
  const int64_t unit = branch.count % 2 == 0 ? 2 : 1;
  for_each_chunk(branch.count, hidden, unit, branch.chunk_parallel(), [&](int64_t first, int64_t n) {
    const RowOperand<Products> normalized(n, channels), activations(n, hidden);
    const Workspace workspace(Products::pairs ? n * hidden : 1);
    float *const sums = Products::pairs ? workspace : activations.data();
    float *const saved_rows = saved == nullptr ? nullptr : saved + first * Products::saved_stride(hidden);
    normalize(branch, first, n, gamma, beta, normalized.writer());
    Products::multiply(n, hidden, channels, normalized.left(), layers.w1, sums,
                       gelu_epilogue(layers.b1, hidden, sums, activations.writer(), saved_rows));
    Products::multiply(n, channels, hidden, activations.left(), layers.w2, out + first * channels,
                       residual_epilogue(branch, first, layers.b2, out));
  });
}

template <typename Products>
void forward(void **params, int64_t **shapes, float *out, float *saved) {
  const Branch branch = mlp_branch_of(params, shapes, kDropPathScale);
  const int64_t channels = branch.channels, hidden = shapes[kW1][0];
  const bool packs = branch.chunk_parallel();
  const WeightOperand<Products, RowOperand> w1(packs, data(params, kW1), hidden, channels);
  const WeightOperand<Products, RowOperand> w2(packs, data(params, kW2), channels, hidden);
  const Layers layers{w1, w2, data(params, kB1), data(params, kB2), hidden};
  forward<Products>(branch, data(params, kGamma), data(params, kBeta), layers, out, saved);
}

template <typename Products>
void forward(void **params, int64_t **shapes) {
  forward<Products>(params, shapes, data(params, kInputs), nullptr);
}

template <typename Products>
void forward_and_save(void **params, int64_t **shapes) {
  forward<Products>(params, shapes, data(params, kInputs), data(params, kInputs + 1));
}

// Return the epilogue that replaces d, the gradient of gelu(saved), by the gradient of `saved` (count, hidden). It also
// writes gelu(saved) to `activations` as packed panels, whose width is that of a tile, and adds column sums to `sums`.
template <typename Products>
auto gelu_grad_epilogue(const float *saved, int64_t count, int64_t hidden, float *d, float *activations, float *sums) {
  const int64_t width = panel_width(hidden), saved_stride = Products::saved_stride(hidden);
  return [=](int thread, int64_t row, int64_t rows, int64_t column, int64_t columns) {
    float *total = sums + thread * hidden + column, *panel = activations + column * count;
    for (int64_t i = row; i < row + rows; ++i) {
      const float *const saved_row = saved + i * saved_stride;
      const int64_t part = saved_stride * column / hidden;
      prefetch(saved_row + rows * saved_stride + part, saved_stride * columns / hidden);  // for the next tile
      for_each_vector(columns, [&](int64_t c, int64_t n) {
        const int64_t at = i * hidden + column + c;
        const Vec in = Products::load_saved(saved_row, column + c, n);
        const Vec cdf = normal_cdf(in);
        const Vec din = load_lanes(d + at, n) * (cdf + in * normal_pdf(in));
        store_lanes(panel + i * width + c, Products::round(in * cdf), n);
        store_lanes(d + at, din, n);
        store_lanes(total + c, load_lanes(total + c, n) + din, n);
      });
    }
  };
}

template <typename Products>
void backward(void **params, int64_t **shapes) {
  const Branch branch = mlp_branch_of(params, shapes, 6);  // in the order of the kernel's comment below
  const float *gamma = data(params, 1), *beta = data(params, 2), *w1 = data(params, 3), *w2 = data(params, 4);
  const float *saved = data(params, 5), *dout = data(params, 7);
  float *dx = data(params, 8), *dgamma = data(params, 9), *dbeta = data(params, 10);
  float *dw1 = data(params, 11), *db1 = data(params, 12), *dw2 = data(params, 13), *db2 = data(params, 14);
  const int64_t channels = branch.channels, hidden = shapes[3][0];
  // A weight's gradient per thread is worth it while it is small beside the activations.
  const bool chunk_parallel = branch.chunk_parallel() && 2 * channels * num_threads() <= branch.count;
  const WeightOperand<Products, ColumnOperand> shared_w2(chunk_parallel, w2, channels, hidden);
  const WeightOperand<Products, ColumnOperand> shared_w1(chunk_parallel, w1, hidden, channels);
  VectorGradient gamma_grad(channels, dgamma), beta_grad(channels, dbeta), b1_grad(hidden, db1), b2_grad(channels, db2);
  WeightGradient w1_grad(hidden, channels, dw1, chunk_parallel), w2_grad(channels, hidden, dw2, chunk_parallel);
  for_each_chunk(branch.count, 2 * hidden, 1, chunk_parallel, [&](int64_t first, int64_t n) {
    const int64_t offset = first * channels;
    Workspace normalized(n * channels), scaled(n * channels), dnormalized(n * channels), dhidden(n * hidden);
    Workspace activations(n * round_up(hidden, panel_width(hidden)));
    normalize(branch, first, n, gamma, beta, normalized);
    const float *d = branch_gradient(branch, first, n, dout + offset, scaled, b2_grad);
    const RowOperand<Products> d_rows(d, n, channels);
    Products::multiply(n, hidden, channels, d_rows.left(), shared_w2, dhidden,
                       gelu_grad_epilogue<Products>(saved + first * Products::saved_stride(hidden), n, hidden, dhidden,
                                                    activations, b1_grad.of_all_threads()));
    w2_grad.add<Products>(n, ColumnOperand<Products>(d_rows, d, n, channels).left(),
                          PanelOperand<Products>(activations, n, hidden).right());
    const RowOperand<Products> dhidden_rows(dhidden, n, hidden);
    w1_grad.add<Products>(n, ColumnOperand<Products>(dhidden_rows, dhidden, n, hidden).left(),
                          ColumnOperand<Products>(normalized, n, channels).right());
    Products::multiply(n, channels, hidden, dhidden_rows.left(), shared_w1, dnormalized);
    input_gradient(branch, first, n, dout + offset, dnormalized, gamma, dx + offset, gamma_grad, beta_grad);
  });
}

}  // namespace

bool packed_mlp_branch(const Branch &branch, const BlockParameters &p, float *out) {
  const int64_t channels = branch.channels, hidden = p.b1.size;
  const Matrix w1 = packed_matrix(p.w1.data, p.w1.size, channels, hidden);
  const Matrix w2 = packed_matrix(p.w2.data, p.w2.size, hidden, channels);
  if (!w1.accepts_rows(branch.count) || !w2.accepts_rows(branch.count)) return false;
  forward<SingleProducts>(branch, p.mlp_gamma, p.mlp_beta, {w1, w2, p.b1, p.b2, hidden}, out, nullptr);
  return true;
}

}  // namespace msg_ms

// x (regions, windows, tokens, C), gamma, beta (C,), w1 (H, C), b1 (H,), w2 (C, H), b2 (C,), drop_path_scale (2,
// images) or (2, 1), of which row 1 is used -> output, as x
MSG_MS_KERNEL(mlp_branch) {
  msg_ms::forward<msg_ms::SingleProducts>(params, shapes);
  return 0;
}

MSG_MS_KERNEL(mlp_branch_float16) {
  msg_ms::forward<msg_ms::Float16Products>(params, shapes);
  return 0;
}

MSG_MS_KERNEL(mlp_branch_bfloat16) {
  msg_ms::forward<msg_ms::BFloat16Products>(params, shapes);
  return 0;
}

// the same inputs -> output; saved for backward: input of the activation function (rows, H), in bfloat16 in pairs
MSG_MS_KERNEL(mlp_branch_train) {
  msg_ms::forward_and_save<msg_ms::SingleProducts>(params, shapes);
  return 0;
}

MSG_MS_KERNEL(mlp_branch_train_float16) {
  msg_ms::forward_and_save<msg_ms::Float16Products>(params, shapes);
  return 0;
}

MSG_MS_KERNEL(mlp_branch_train_bfloat16) {
  msg_ms::forward_and_save<msg_ms::BFloat16Products>(params, shapes);
  return 0;
}

// x, gamma, beta, w1, w2, saved input of the activation function, drop_path_scale, gradient of the output
// -> gradients of x, gamma, beta, w1, b1, w2, b2
MSG_MS_KERNEL(mlp_branch_grad) {
  msg_ms::backward<msg_ms::SingleProducts>(params, shapes);
  return 0;
}

MSG_MS_KERNEL(mlp_branch_grad_float16) {
  msg_ms::backward<msg_ms::Float16Products>(params, shapes);
  return 0;
}

MSG_MS_KERNEL(mlp_branch_grad_bfloat16) {
  msg_ms::backward<msg_ms::BFloat16Products>(params, shapes);
  return 0;
}
