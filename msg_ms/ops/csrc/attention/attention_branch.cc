// Kernels of the attention branch, x + drop_path_scale * proj(attention(LayerNorm(x))), then the shuffle of the MSG
// tokens, and its gradients; see branches.py. Windows are processed in chunks that fit into the cache; see chunks.h.

#include <cmath>

#include "attention/branch.h"
#include "attention/gradients.h"
#include "attention/normalization.h"
#include "attention/packed_blocks.h"
#include "attention/position_bias.h"
#include "attention/residual.h"
#include "attention/shuffle.h"
#include "attention/window_attention.h"
#include "gemm/products.h"

namespace msg_ms {
namespace {

// The inputs, the same for all kernels.
enum Input {
  kX,
  kGamma,
  kBeta,
  kQkvWeight,
  kQkvBias,
  kTable,
  kMsgBias,
  kProjWeight,
  kProjBias,
  kDropPathScale,
  kSettings,
  kInputs
};

// The settings; then perhaps a Padding (branch.h).
enum Setting { kScale, kShuffles, kPadding };

struct AttentionBranch : Branch {
  const float *gamma, *beta, *qkv_bias, *proj_bias, *settings;
  int64_t heads;

  Attention attention(int64_t rows, const float *qkv, const float *bias, float *saved) const {
    const int64_t window_size = std::lround(std::sqrt(static_cast<double>(tokens - 1)));
    return {rows / tokens, tokens, heads, channels / heads, window_size, settings[kScale], qkv, qkv_bias, bias, saved};
  }

  Attention attention() const { return attention(0, nullptr, nullptr, nullptr); }
  bool shuffles() const { return settings[kShuffles] != 0; }
};

AttentionBranch branch_of_parameters(void **params, int64_t **shapes) {
  Branch branch(shapes[kX], data(params, kX), data(params, kDropPathScale), shapes[kDropPathScale][1]);
  branch.padding = Padding::read(data(params, kSettings), kPadding, shapes[kSettings][0], branch.tokens);
  return {branch,
          data(params, kGamma),
          data(params, kBeta),
          data(params, kQkvBias),
          data(params, kProjBias),
          data(params, kSettings),
          shapes[kTable][1]};
}

// Compute `out` at the tokens of `kept`, the first ones of every window. Unless they are null, fill saved_qkv (see
// Attention::saved) and saved_heads (rows, C), the attention's output before the projection.
template <typename Products>
void forward(const AttentionBranch &branch, const Branch &kept, Matrix qkv_weight, Matrix proj_weight,
             const float *bias, float *out, float *saved_qkv, float *saved_heads) {
  const int64_t channels = branch.channels;
  const bool saves = saved_qkv != nullptr;
  for_each_chunk(branch.count, 3 * channels, branch.tokens, branch.chunk_parallel(), [&](int64_t first, int64_t n) {
    const int64_t kept_first = first / branch.tokens * kept.tokens, kept_rows = n / branch.tokens * kept.tokens;
    const RowOperand<Products> normalized(n, channels);
    Workspace qkv(3 * n * channels), heads_workspace(saves ? 1 : kept_rows * channels);
    float *heads = saves ? saved_heads + first * channels : heads_workspace;
    normalize(branch, first, n, branch.gamma, branch.beta, normalized.writer());
    Products::multiply(n, 3 * channels, channels, normalized.left(), qkv_weight, qkv);
    Attention attention = branch.attention(n, qkv, bias, saves ? saved_qkv + first * 3 * channels : nullptr);
    attention.queries = kept.tokens;
    attend(attention, heads);
    Products::multiply(kept_rows, channels, channels, RowOperand<Products>(heads, kept_rows, channels).left(),
                       proj_weight, out + kept_first * channels,
                       residual_epilogue(kept, kept_first, branch.proj_bias, out));
  });
  if (branch.shuffles()) shuffle_msg_tokens(kept, out);
}

template <typename Products>
void forward(void **params, int64_t **shapes, float *out, float *saved_qkv, float *saved_heads) {
  const AttentionBranch branch = branch_of_parameters(params, shapes);
  const int64_t channels = branch.channels;
  const bool packs = branch.chunk_parallel();
  const WeightOperand<Products, RowOperand> qkv_weight(packs, data(params, kQkvWeight), 3 * channels, channels);
  const WeightOperand<Products, RowOperand> proj_weight(packs, data(params, kProjWeight), channels, channels);
  const Workspace bias(branch.attention().bias_size());
  pack_bias(branch.attention(), data(params, kTable), data(params, kMsgBias), true, bias);
  forward<Products>(branch, branch, qkv_weight, proj_weight, bias, out, saved_qkv, saved_heads);
}

template <typename Products>
void forward(void **params, int64_t **shapes) {
  forward<Products>(params, shapes, data(params, kInputs), nullptr, nullptr);
}

template <typename Products>
void forward_and_save(void **params, int64_t **shapes) {
  forward<Products>(params, shapes, data(params, kInputs), data(params, kInputs + 1), data(params, kInputs + 2));
}

template <typename Products>
void backward(void **params, int64_t **shapes) {
  const AttentionBranch branch = branch_of_parameters(params, shapes);
  float *saved_qkv = data(params, kInputs);
  const float *saved_heads = data(params, kInputs + 1), *dout = data(params, kInputs + 2);
  const auto gradient = [&](Input input) { return data(params, kInputs + 3 + input); };
  float *dx = gradient(kX), *dgamma = gradient(kGamma), *dbeta = gradient(kBeta);
  float *dqkv_weight = gradient(kQkvWeight), *dqkv_bias = gradient(kQkvBias);
  float *dtable = gradient(kTable), *dmsg_bias = gradient(kMsgBias);
  float *dproj_weight = gradient(kProjWeight), *dproj_bias = gradient(kProjBias);
  const int64_t channels = branch.channels, qkv_channels = 3 * channels;
  // dx holds the gradient before the shuffle until each chunk overwrites its rows.
  const float *dsum = dout;
  if (branch.shuffles()) {
    std::memcpy(dx, dout, branch.count * channels * sizeof(float));
    shuffle_msg_tokens(branch, dx);
    dsum = dx;
  }
  // A weight's gradient per thread is worth it while it is small beside the activations.
  const bool chunk_parallel = branch.chunk_parallel() && 2 * channels * num_threads() <= branch.count;
  const WeightOperand<Products, ColumnOperand> proj_weight(chunk_parallel, data(params, kProjWeight), channels,
                                                           channels);
  const WeightOperand<Products, ColumnOperand> qkv_weight(chunk_parallel, data(params, kQkvWeight), qkv_channels,
                                                          channels);
  const Attention shape = branch.attention();
  const Workspace bias(shape.bias_size());
  pack_bias(shape, data(params, kTable), data(params, kMsgBias), false, bias);
  const Workspace dbias(shape.bias_size());
  {
    VectorGradient gamma_grad(channels, dgamma), beta_grad(channels, dbeta);
    VectorGradient proj_bias_grad(channels, dproj_bias), qkv_bias_grad(qkv_channels, dqkv_bias);
    VectorGradient bias_grad(shape.bias_size(), dbias);
    WeightGradient proj_weight_grad(channels, channels, dproj_weight, chunk_parallel);
    WeightGradient qkv_weight_grad(qkv_channels, channels, dqkv_weight, chunk_parallel);
    for_each_chunk(branch.count, 6 * channels, branch.tokens, chunk_parallel, [&](int64_t first, int64_t n) {
      const int64_t offset = first * channels;
      Workspace normalized(n * channels), scaled(n * channels), dnormalized(n * channels), dheads(n * channels);
      Workspace dqkv(n * qkv_channels);
      normalize(branch, first, n, branch.gamma, branch.beta, normalized);
      const float *d = branch_gradient(branch, first, n, dsum + offset, scaled, proj_bias_grad);
      const RowOperand<Products> d_rows(d, n, channels);
      Products::multiply(n, channels, channels, d_rows.left(), proj_weight, dheads);
      proj_weight_grad.add<Products>(n, ColumnOperand<Products>(d_rows, d, n, channels).left(),
                                     ColumnOperand<Products>(saved_heads + offset, n, channels).right());
      const Attention attention = branch.attention(n, nullptr, bias, saved_qkv + 3 * offset);
      attend_grad(attention, dheads, dqkv, bias_grad.of_all_threads(), qkv_bias_grad.of_all_threads());
      const RowOperand<Products> dqkv_rows(dqkv, n, qkv_channels);
      qkv_weight_grad.add<Products>(n, ColumnOperand<Products>(dqkv_rows, dqkv, n, qkv_channels).left(),
                                    ColumnOperand<Products>(normalized, n, channels).right());
      Products::multiply(n, channels, qkv_channels, dqkv_rows.left(), qkv_weight, dnormalized);
      input_gradient(branch, first, n, dsum + offset, dnormalized, branch.gamma, dx + offset, gamma_grad, beta_grad);
    });
  }
  std::memset(dtable, 0, shape.table_rows() * shape.heads * sizeof(float));
  std::memset(dmsg_bias, 0, 2 * shape.heads * sizeof(float));
  unpack_bias_grad(shape, dbias, dtable, dmsg_bias);
}

}  // namespace

bool packed_attention_branch(const Branch &input, const Branch &kept, const PackedSettings &settings,
                             const BlockParameters &p, float *out) {
  const int64_t channels = input.channels;
  const Matrix qkv_weight = packed_matrix(p.qkv_weight.data, p.qkv_weight.size, channels, 3 * channels);
  const Matrix proj_weight = packed_matrix(p.proj_weight.data, p.proj_weight.size, channels, channels);
  if (!qkv_weight.accepts_rows(input.tokens) || !proj_weight.accepts_rows(kept.tokens)) return false;
  const AttentionBranch branch{input, p.gamma, p.beta, p.qkv_bias, p.proj_bias, settings.values, settings.heads};
  forward<SingleProducts>(branch, kept, qkv_weight, proj_weight, p.position_bias, out, nullptr, nullptr);
  return true;
}

}  // namespace msg_ms

// x (regions, windows, tokens, C), gamma, beta (C,), qkv weight (3C, C), qkv bias (3C,), table ((2w-1)^2, heads),
// MSG bias (heads, 2, 1, 1), proj weight (C, C), proj bias (C,), drop_path_scale (2, images) or (2, 1), of which row 0
// is used, settings (2,): scale, and 1 to shuffle; or (7,) with a Padding (branch.h) -> output, as x
MSG_MS_KERNEL(attention_branch) {
  msg_ms::forward<msg_ms::SingleProducts>(params, shapes);
  return 0;
}

MSG_MS_KERNEL(attention_branch_float16) {
  msg_ms::forward<msg_ms::Float16Products>(params, shapes);
  return 0;
}

MSG_MS_KERNEL(attention_branch_bfloat16) {
  msg_ms::forward<msg_ms::BFloat16Products>(params, shapes);
  return 0;
}

// the same inputs -> output; saved for backward: queries, keys and values (windows, heads, 3, tokens, C / heads),
// attention output before the projection (rows, C)
MSG_MS_KERNEL(attention_branch_train) {
  msg_ms::forward_and_save<msg_ms::SingleProducts>(params, shapes);
  return 0;
}

MSG_MS_KERNEL(attention_branch_train_float16) {
  msg_ms::forward_and_save<msg_ms::Float16Products>(params, shapes);
  return 0;
}

MSG_MS_KERNEL(attention_branch_train_bfloat16) {
  msg_ms::forward_and_save<msg_ms::BFloat16Products>(params, shapes);
  return 0;
}

// the same inputs, the two saved tensors, gradient of the output -> gradients of the first nine inputs
MSG_MS_KERNEL(attention_branch_grad) {
  msg_ms::backward<msg_ms::SingleProducts>(params, shapes);
  return 0;
}

MSG_MS_KERNEL(attention_branch_grad_float16) {
  msg_ms::backward<msg_ms::Float16Products>(params, shapes);
  return 0;
}

MSG_MS_KERNEL(attention_branch_grad_bfloat16) {
  msg_ms::backward<msg_ms::BFloat16Products>(params, shapes);
  return 0;
}
