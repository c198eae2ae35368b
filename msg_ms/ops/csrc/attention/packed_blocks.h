// Inference of successive blocks with packed weights in one kernel call, since at one image the calls themselves take a
// few percent of the time; see packed.py.
#pragma once

#include "attention/branch.h"
#include "base/kernel.h"

namespace msg_ms {

// The blocks' settings: scale of the scores, 1 to shuffle, heads, the sizes of a block's parameters; then perhaps a
// Padding (branch.h).
struct PackedSettings {
  static constexpr int kParameters = 13;
  enum Setting { kScale, kShuffles, kHeads, kSizes, kPadding = kSizes + kParameters };
  const float *values;
  int64_t count, heads;

  PackedSettings(const float *v, int64_t n) : values(v), count(n), heads(std::lround(v[kHeads])) {}
  float scale() const { return values[kScale]; }
  bool shuffles() const { return values[kShuffles] != 0; }
  int64_t size(int i) const { return std::llround(values[kSizes + i]); }
  Padding padding(int64_t tokens) const { return Padding::read(values, kPadding, count, tokens); }
};

// A block's parameters, weights and position bias packed. They are one input of the kernel, since the framework needs
// time for each: one after the other, each from a multiple of 16 floats.
struct BlockParameters {
  struct Parameter {
    const float *data;
    int64_t size;
    operator const float *() const { return data; }
  };
  Parameter gamma, beta, qkv_weight, qkv_bias, position_bias, proj_weight, proj_bias;  // of the attention branch
  Parameter mlp_gamma, mlp_beta, w1, b1, w2, b2;

  static BlockParameters read(const float *data, const PackedSettings &settings) {
    int i = 0;
    const auto next = [&] {
      const Parameter parameter{data, settings.size(i++)};
      data += round_up(parameter.size, 16);
      return parameter;
    };
    // An initializer list is evaluated from left to right.
    return {next(), next(), next(), next(), next(), next(), next(), next(), next(), next(), next(), next(), next()};
  }
};

// Compute a branch in single precision; false if a weight is packed for another number of rows. `out` is not the input.
// The attention branch computes the tokens of `kept`.
bool packed_attention_branch(const Branch &branch, const Branch &kept, const PackedSettings &settings,
                             const BlockParameters &p, float *out);
bool packed_mlp_branch(const Branch &branch, const BlockParameters &p, float *out);

// Run the blocks of a kernel call with the inputs x, settings and one for each block. If the output (regions, windows,
// n, C) has fewer tokens than x, the last block computes only the first n of every window.
//
// attention(branch, kept, settings, parameters, stream) and mlp(branch, parameters, stream) compute one branch each:
// `kept` is the branch's input at the tokens to compute, and `stream` may be written. They return the output, or null
// on an error.
template <typename AttentionFunction, typename MlpFunction>
bool run_blocks(int count, void **params, int *dims, int64_t **shapes, const AttentionFunction &attention,
                const MlpFunction &mlp) {
  const PackedSettings settings(data(params, 1), size(shapes[1], dims[1]));
  float *const out = data(params, count - 1);
  const Branch input(shapes[0], data(params, 0), &kNoDropPath, 1);
  const int64_t kept_tokens = shapes[count - 1][2], channels = input.channels;
  const bool keeps_all = kept_tokens == input.tokens;
  const Workspace stream(keeps_all ? 1 : input.count * channels), gathered(keeps_all ? 1 : size(shapes[count - 1], 4));
  const float *x = input.x;
  for (int i = 2; i + 1 < count; ++i) {
    const BlockParameters parameters = BlockParameters::read(data(params, i), settings);
    Branch branch(shapes[0], x, &kNoDropPath, 1), kept = branch;
    branch.padding = kept.padding = settings.padding(branch.tokens);
    const bool is_last = i + 2 == count;
    if (is_last && !keeps_all) {
      for (int64_t w = 0; w < branch.regions * branch.windows; ++w) {
        std::memcpy(gathered + w * kept_tokens * channels, x + w * branch.tokens * channels,
                    kept_tokens * channels * sizeof(float));
      }
      const int64_t shape[] = {branch.regions, branch.windows, kept_tokens, channels};
      kept = Branch(shape, gathered, &kNoDropPath, 1);
      kept.padding = branch.padding;
    }
    float *const to = is_last || keeps_all ? out : stream;
    kept.x = attention(branch, kept, settings, parameters, to);
    if (kept.x == nullptr) return false;
    kept.padding = Padding();
    x = mlp(kept, parameters, to);
    if (x == nullptr) return false;
  }
  return x == out;
}

}  // namespace msg_ms
