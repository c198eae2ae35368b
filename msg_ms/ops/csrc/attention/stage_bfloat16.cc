// Kernels of a stage's blocks in bfloat16, in one call; see packed.py.
//
// Weights and the left-hand sides of products are rounded to bfloat16. Sums, softmax, LayerNorm, GELU and the residual
// stream are in single precision.

#include "attention/attention_bfloat16.h"
#include "attention/normalization.h"
#include "attention/packed_blocks.h"
#include "attention/shuffle.h"

namespace msg_ms {
namespace {

// Return the target that adds a branch's last product and its bias to the residual stream, from row `first`.
ProductTarget add_to_residual(const Branch &branch, int64_t first, const float *bias, float *out) {
  const int64_t at = first * branch.channels;
  return {ProductTarget::kResidual, bias, nullptr, out + at, branch.x + at, branch.channels};
}

// Normalize rows [first, first + n) of the branch's input and round them. Padded patches become zeros.
void normalize_and_round(const Branch &branch, int64_t first, int64_t n, const float *gamma, const float *beta,
                         const BFloat16Rows &to) {
  BFloat16 *const rows = to.at(0, 0);
  const int64_t stride = 2 * to.stride, padded_channels = 2 * to.pairs;
  normalize(
    branch, first, n, gamma, beta,
    [=](int64_t i, int64_t c, int64_t lanes, Vec value)
      MSG_MS_INLINE { store_rounded(rows + i * stride + c, value, lanes); },
    [=](int64_t i) { std::memset(rows + i * stride, 0, padded_channels * sizeof(BFloat16)); });
}

// out = kept + proj(attention(LayerNorm(x))) at the tokens of `kept`, then the shuffle; out may be x.
void attention_branch(const Branch &branch, const Branch &kept, const PackedSettings &settings,
                      const BlockParameters &p, float *out) {
  const int64_t channels = branch.channels, tokens = branch.tokens, heads = settings.heads;
  for_each_chunk(branch.count, 2 * channels, tokens, branch.chunk_parallel(), [&](int64_t first, int64_t n) {
    const int64_t windows = n / tokens, kept_first = first / tokens * kept.tokens;
    const BFloat16Rows normalized(n, channels), qkv(n, 3 * channels), result(windows * kept.tokens, channels);
    normalize_and_round(branch, first, n, p.gamma, p.beta, normalized);
    gemm_bfloat16(n, 3 * channels, normalized, p.qkv_weight, {ProductTarget::kRound, p.qkv_bias, &qkv});
    BFloat16Attention attention{windows, tokens, heads, channels / heads, settings.scale(), qkv, p.position_bias};
    attention.queries = kept.tokens;
    attend_bfloat16(attention, result);
    gemm_bfloat16(windows * kept.tokens, channels, result, p.proj_weight,
                  add_to_residual(kept, kept_first, p.proj_bias, out));
  });
  if (settings.shuffles()) shuffle_msg_tokens(kept, out);
}

// out = x + gelu(LayerNorm(x) w1^T + b1) w2^T + b2; out may be x.
void mlp_branch(const Branch &branch, const BlockParameters &p, float *out) {
  const int64_t channels = branch.channels, hidden = p.b1.size;
  for_each_chunk(branch.count, pair_count(hidden), 1, branch.chunk_parallel(), [&](int64_t first, int64_t n) {
    const BFloat16Rows normalized(n, channels), activations(n, hidden);
    normalize_and_round(branch, first, n, p.mlp_gamma, p.mlp_beta, normalized);
    gemm_bfloat16(n, hidden, normalized, p.w1, {ProductTarget::kGelu, p.b1, &activations});
    gemm_bfloat16(n, channels, activations, p.w2, add_to_residual(branch, first, p.b2, out));
  });
}

int run_stage(int count, void **params, int *dims, int64_t **shapes) {
  const bool done = run_blocks(
    count, params, dims, shapes,
    [&](const Branch &branch, const Branch &kept, const PackedSettings &settings, const BlockParameters &p,
        float *stream) {
      attention_branch(branch, kept, settings, p, stream);
      return stream;
    },
    [&](const Branch &branch, const BlockParameters &p, float *stream) {
      mlp_branch(branch, p, stream);
      return stream;
    });
  return done ? 0 : 1;
}

}  // namespace
}  // namespace msg_ms

// x (regions, windows, tokens, C), settings, the parameters of each block; see packed_blocks.h -> output, as x or with
// the first tokens only
MSG_MS_KERNEL(stage_bfloat16) {
  if (!msg_ms::has_bfloat16()) return 1;
  return msg_ms::run_stage(count, params, dims, shapes);
}

// The same with the output's shape of the first tokens.
MSG_MS_KERNEL(stage_bfloat16_first) { return stage_bfloat16(count, params, dims, shapes, dtypes, stream, extra); }
