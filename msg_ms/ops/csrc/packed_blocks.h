// Inference of successive blocks with packed weights in one kernel call, since at one image the calls themselves take a
// few percent of the time; see packed.py.
#pragma once

#include "branch.h"
#include "kernel.h"

namespace msg_ms {

// A block's parameters. 0 gamma, 1 beta, 2 packed qkv weight, 3 qkv bias, 4 packed position bias, 5 packed proj weight,
// 6 proj bias; 7 gamma, 8 beta, 9 packed w1, 10 b1, 11 packed w2, 12 b2.
struct BlockParameters {
  static constexpr int kCount = 13;
  void **params;
  int *dims;
  int64_t **shapes;

  const float *operator[](int i) const { return data(params, i); }
  int64_t size(int i) const { return msg_ms::size(shapes[i], dims[i]); }
};

// The blocks' settings (3,): scale of the scores, 1 to shuffle, heads; or (8,) with a Padding (branch.h).
struct PackedSettings {
  const float *values;
  int64_t count, heads;

  PackedSettings(const float *v, int64_t n) : values(v), count(n), heads(std::lround(v[2])) {}
  float scale() const { return values[0]; }
  bool shuffles() const { return values[1] != 0; }
  Padding padding(int64_t tokens) const { return Padding::read(values, 3, count, tokens); }
};

// Compute a branch in single precision; false if a weight is packed for another number of rows. `out` is not the input.
bool packed_attention_branch(const Branch &branch, const PackedSettings &settings, const BlockParameters &p, float *out);
bool packed_mlp_branch(const Branch &branch, const BlockParameters &p, float *out);

// Call attention(branch, settings, parameters) and mlp(branch, parameters) for the blocks of a kernel call with the inputs x,
// settings, 13 for each block. They return the branch's output, which is the input of the next one.
template <typename AttentionFunction, typename MlpFunction>
const float *for_each_block(int count, void **params, int *dims, int64_t **shapes, const AttentionFunction &attention,
                            const MlpFunction &mlp) {
  const PackedSettings settings(data(params, 1), size(shapes[1], dims[1]));
  const float *x = data(params, 0);
  for (int i = 2; i + BlockParameters::kCount < count; i += BlockParameters::kCount) {
    const BlockParameters parameters{params + i, dims + i, shapes + i};
    Branch branch(shapes[0], x, &kNoDropPath, 1);
    branch.padding = settings.padding(branch.tokens);
    x = attention(branch, settings, parameters);
    if (x == nullptr) return nullptr;
    x = mlp(Branch(shapes[0], x, &kNoDropPath, 1), parameters);
    if (x == nullptr) return nullptr;
  }
  return x;
}

}  // namespace msg_ms
