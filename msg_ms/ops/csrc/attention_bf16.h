// Window attention in bfloat16, for inference: both products in bfloat16, the softmax in single precision.
//
// One head of one window at a time, as in window_attention.h. Nothing is packed but keys and values.
#pragma once

#include "gemm_bf16.h"

namespace msg_ms {

// Windows of queries, keys and values: HalfRows (windows * tokens, 3 * heads * head_dim), with bias, queries scaled.
struct HalfAttention {
  int64_t windows, tokens, heads, head_dim;  // head_dim is even
  const HalfRows &qkv;
  const float *bias;  // (heads, tokens, padded_tokens), written by pack_bias (window_attention.h)
  int64_t padded_tokens = round_up(tokens, kLanes), padded_dim = round_up(head_dim, kLanes);
};

// Write the heads' outputs (windows * tokens, heads * head_dim).
template <typename Arithmetic>
void attend_bf16(const HalfAttention &attention, const HalfRows &out);

}  // namespace msg_ms
