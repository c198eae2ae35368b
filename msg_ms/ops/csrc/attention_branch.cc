// x + keep * (window attention of normalise(x), projected), its messages shuffled; and its gradients. See branches.py.
//
// Some windows at a time, so that what lies between the products stays in the cache.

#include <cmath>

#include "branch.h"
#include "product.h"
#include "window_attention.h"

namespace msg_ms {
namespace {

// x, gamma, beta, qkv's weight and bias, table, message, proj's weight and bias, keep, settings (scale, shuffle)
constexpr int kInputs = 11;
// x, gamma, beta, qkv's weight and bias, position bias, proj's weight and bias, settings (scale, shuffle, heads)
constexpr int kLaidOutInputs = 9;

struct AttentionBranch : Branch {
  const float *gamma, *beta, *qkv_bias, *proj_bias, *settings;
  int64_t heads;

  Attention attention(int64_t rows, const float *qkv, const float *bias, float *kept) const {
    const int64_t side = std::lround(std::sqrt(static_cast<double>(tokens - 1)));
    return {rows / tokens, tokens, heads, channels / heads, side, settings[0], qkv, qkv_bias, bias, kept};
  }

  Attention attention() const { return attention(0, nullptr, nullptr, nullptr); }
  bool shuffled() const { return settings[1] != 0; }
};

AttentionBranch attention_of(void **params, int64_t **shapes) {
  const Branch branch(shapes[0], data(params, 0), data(params, 9), shapes[9][1]);
  return {branch, data(params, 1), data(params, 2), data(params, 4), data(params, 8), data(params, 10), shapes[5][1]};
}

AttentionBranch laid_out_attention_of(void **params, int64_t **shapes) {
  const float *settings = data(params, 8);
  const Branch branch(shapes[0], data(params, 0), &kWhole, 1);
  return {branch,   data(params, 1), data(params, 2), data(params, 4), data(params, 7),
          settings, std::lround(settings[2])};
}

// Queries, keys and values (see Attention) and the heads' results (rows, C) are kept where there is room for them.
void forward(const AttentionBranch &branch, Matrix qkv_weight, Matrix proj_weight, const float *bias, float *out,
             float *kept_qkv, float *kept_heads) {
  const int64_t channels = branch.channels;
  const bool keeps = kept_qkv != nullptr;
  branch.for_each_chunk(3 * channels, branch.tokens, branch.apart(), [&](int64_t first, int64_t n) {
    Memory normal(n * channels), qkv(3 * n * channels), heads_space(keeps ? 1 : n * channels);
    float *heads = keeps ? kept_heads + first * channels : heads_space;
    branch.normal(first, n, branch.gamma, branch.beta, normal);
    product(n, 3 * channels, channels, matrix(normal, channels), qkv_weight, qkv);
    attend(branch.attention(n, qkv, bias, keeps ? kept_qkv + first * 3 * channels : nullptr), heads);
    product(n, channels, channels, matrix(heads, channels), proj_weight, out + first * channels,
            branch.sum(first, branch.proj_bias, out));
  });
  if (branch.shuffled()) branch.shuffle(out);
}

void forward(void **params, int64_t **shapes, float *out, float *kept_qkv, float *kept_heads) {
  const AttentionBranch branch = attention_of(params, shapes);
  const int64_t channels = branch.channels;
  const bool apart = branch.apart();
  const LaidOut qkv_weight(apart, channels, 3 * channels, transposed(data(params, 3), channels));
  const LaidOut proj_weight(apart, channels, channels, transposed(data(params, 7), channels));
  const Memory bias(branch.attention().biases());
  lay_out_bias(branch.attention(), data(params, 5), data(params, 6), bias);
  forward(branch, qkv_weight, proj_weight, bias, out, kept_qkv, kept_heads);
}

void backward(void **params, int64_t **shapes) {
  const AttentionBranch branch = attention_of(params, shapes);
  float *qkv = data(params, kInputs);
  const float *heads = data(params, kInputs + 1), *dout = data(params, kInputs + 2);
  const auto gradient = [&](int i) { return data(params, kInputs + 3 + i); };
  float *dx = gradient(0), *dgamma = gradient(1), *dbeta = gradient(2), *dqkv_weight = gradient(3), *dqkv_bias = gradient(4);
  float *dtable = gradient(5), *dmessage = gradient(6), *dproj_weight = gradient(7), *dproj_bias = gradient(8);
  const int64_t channels = branch.channels, wide = 3 * channels;
  // dx begins as the sum's gradient before the shuffle.
  const float *dsum = dout;
  if (branch.shuffled()) {
    std::memcpy(dx, dout, branch.count * channels * sizeof(float));
    branch.shuffle(dx);
    dsum = dx;
  }
  const bool apart = branch.apart() && 2 * channels * threads() <= branch.count;
  const LaidOut proj_weight(apart, channels, channels, matrix(data(params, 7), channels));
  const LaidOut qkv_weight(apart, wide, channels, matrix(data(params, 3), channels));
  const Attention shape = branch.attention();
  const Memory bias(shape.biases());
  lay_out_bias(shape, data(params, 5), data(params, 6), bias);
  const Memory dbias(shape.biases());
  {
    Sums gammas(channels, dgamma), betas(channels, dbeta), proj_biases(channels, dproj_bias), qkv_biases(wide, dqkv_bias);
    Sums biases(shape.biases(), dbias);
    WeightSum proj_weights(channels, channels, dproj_weight, apart), qkv_weights(wide, channels, dqkv_weight, apart);
    branch.for_each_chunk(6 * channels, branch.tokens, apart, [&](int64_t first, int64_t n) {
      const int64_t at = first * channels;
      Memory normal(n * channels), space(n * channels), dnormal(n * channels), dheads(n * channels), dqkv(n * wide);
      branch.normal(first, n, branch.gamma, branch.beta, normal);
      const float *d = branch.gradient(first, n, dsum + at, space, proj_biases);
      product(n, channels, channels, matrix(d, channels), proj_weight, dheads);
      proj_weights.add(n, transposed(d, channels), matrix(heads + at, channels));
      const Attention attention = branch.attention(n, nullptr, bias, qkv + 3 * at);
      attend_grad(attention, dheads, dqkv, biases.parts(), qkv_biases.parts());
      qkv_weights.add(n, transposed(dqkv, wide), matrix(normal, channels));
      product(n, channels, wide, matrix(dqkv, wide), qkv_weight, dnormal);
      branch.normal_gradient(first, n, dsum + at, dnormal, branch.gamma, dx + at, gammas, betas);
    });
  }
  std::memset(dtable, 0, shape.offsets() * shape.heads * sizeof(float));
  std::memset(dmessage, 0, 2 * shape.heads * sizeof(float));
  gather_bias(shape, dbias, dtable, dmessage);
}

}  // namespace
}  // namespace msg_ms

// x (regions, windows, tokens, C), gamma, beta (C,), qkv's weight (3C, C) and bias (3C,), table ((2w-1)^2, heads),
// message (heads, 2, 1, 1), proj's weight (C, C) and bias (C,), keep (2, images) or (2, 1) whose first row counts, settings
// (2,): scale, and 1 to shuffle -> the sum, as x
MSG_MS_KERNEL(attention_branch) {
  msg_ms::forward(params, shapes, msg_ms::data(params, msg_ms::kInputs), nullptr, nullptr);
  return 0;
}

// the same -> the sum, queries, keys and values (windows, heads, 3, tokens, C / heads), what the heads give (rows, C)
MSG_MS_KERNEL(attention_branch_kept) {
  using namespace msg_ms;
  forward(params, shapes, data(params, kInputs), data(params, kInputs + 1), data(params, kInputs + 2));
  return 0;
}

// the same, the two that were kept, the sum's gradient -> gradients of the first nine
MSG_MS_KERNEL(attention_branch_grad) {
  msg_ms::backward(params, shapes);
  return 0;
}

// table ((2w-1)^2, heads), message (heads, 2, 1, 1) -> the position bias as attention takes it, in heads * (w^2 + 1) times
// w^2 + 1 rounded up to 16
MSG_MS_KERNEL(lay_out_position_bias) {
  using namespace msg_ms;
  const int64_t side = (std::lround(std::sqrt(static_cast<double>(shapes[0][0]))) + 1) / 2;
  const Attention attention{0, side * side + 1, shapes[0][1], 1, side, 1.0f, nullptr, nullptr, nullptr, nullptr};
  std::memset(data(params, 2), 0, size(shapes[2], dims[2]) * sizeof(float));
  lay_out_bias(attention, data(params, 0), data(params, 1), data(params, 2));
  return 0;
}

// x (regions, windows, tokens, C), gamma, beta (C,), qkv's weight as lay_out_weight gives it and its bias (3C,), what
// lay_out_position_bias gives, proj's weight, laid out, and bias (C,), settings (3,): scale, 1 to shuffle, heads
// -> the sum, as x
MSG_MS_KERNEL(attention_branch_laid_out) {
  using namespace msg_ms;
  const int64_t channels = shapes[0][3];
  const Matrix qkv_weight = laid_out(data(params, 3), size(shapes[3], dims[3]), channels, 3 * channels);
  const Matrix proj_weight = laid_out(data(params, 6), size(shapes[6], dims[6]), channels, channels);
  if (!qkv_weight.takes(shapes[0][2]) || !proj_weight.takes(shapes[0][2])) return 1;
  forward(laid_out_attention_of(params, shapes), qkv_weight, proj_weight, data(params, 5), data(params, kLaidOutInputs),
          nullptr, nullptr);
  return 0;
}
