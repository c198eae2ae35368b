// The kernel of a stage's blocks with packed weights in single precision; see packed_blocks.h.

#include "attention/packed_blocks.h"

// x (regions, windows, tokens, C), settings, the parameters of each block -> output, as x or with the first tokens only
MSG_MS_KERNEL(stage_packed) {
  using namespace msg_ms;
  const Workspace workspace(size(shapes[0], dims[0]));
  float *const between = workspace;
  const bool done = run_blocks(
    count, params, dims, shapes,
    [&](const Branch &branch, const Branch &kept, const PackedSettings &settings, const BlockParameters &p, float *) {
      return packed_attention_branch(branch, kept, settings, p, between) ? between : nullptr;
    },
    [&](const Branch &branch, const BlockParameters &p, float *stream) {
      return packed_mlp_branch(branch, p, stream) ? stream : nullptr;
    });
  return done ? 0 : 1;
}

// The same with the output's shape of the first tokens.
MSG_MS_KERNEL(stage_packed_first) { return stage_packed(count, params, dims, shapes, dtypes, stream, extra); }
