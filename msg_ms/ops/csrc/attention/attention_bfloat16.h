// Window attention in bfloat16, for inference: both products in bfloat16, the softmax in single precision.
//
// One head of one window at a time, as in window_attention.h. Nothing is packed but queries and values.
#pragma once

#include "gemm/gemm_bfloat16.h"

namespace msg_ms {

// Windows of queries, keys and values: BFloat16Rows (windows * tokens, 3 * heads * head_dim), with bias.
struct BFloat16Attention {
  int64_t windows, tokens, heads, head_dim;  // head_dim is even
  float scale;
  const BFloat16Rows &qkv;
  const float *bias;         // (heads, tokens, padded_tokens): pack_bias by key (position_bias.h), times log2(e)
  int64_t queries = tokens;  // the first tokens of a window, for which outputs are computed
  int64_t padded_tokens = round_up(tokens, kLanes), padded_dim = round_up(head_dim, kLanes);
};

// Write the heads' outputs (windows * queries, heads * head_dim).
void attend_bfloat16(const BFloat16Attention &attention, const BFloat16Rows &out);

}  // namespace msg_ms
