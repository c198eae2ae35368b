// The kernel of a stage's blocks with packed weights in single precision; see packed_blocks.h.

#include "packed_blocks.h"

// x (regions, windows, tokens, C), settings, 13 inputs for each block -> output, as x
MSG_MS_KERNEL(stage_packed) {
  using namespace msg_ms;
  float *const out = data(params, count - 1);
  const Workspace workspace(size(shapes[0], dims[0]));
  float *const between = workspace;
  const float *const result = for_each_block(
    count, params, dims, shapes,
    [&](const Branch &branch, const PackedSettings &settings, const BlockParameters &p) {
      return packed_attention_branch(branch, settings, p, between) ? between : nullptr;
    },
    [&](const Branch &branch, const BlockParameters &p) { return packed_mlp_branch(branch, p, out) ? out : nullptr; });
  return result == out ? 0 : 1;
}
