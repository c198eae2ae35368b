// The position bias of the attention scores, gathered from its parameters, and its gradient; see window_attention.py.
#pragma once

#include "attention/window_attention.h"

namespace msg_ms {

constexpr float kLog2E = 1.44269504088896341f;  // in bfloat16 the softmax has powers of 2

// Write the position bias (heads, tokens, padded_tokens) from the table (table_rows, heads) and the MSG token's bias
// (heads, 2), see window_attention.py. A row belongs to a query; if `by_key`, to a key. Padded columns are so low that
// the softmax ignores them, or 0 if they are no queries.
void pack_bias(const Attention &attention, const float *table, const float *msg_bias, bool by_key, float *bias);

// Add the gradient of the position bias (heads, tokens, padded_tokens) to those of the table and the MSG token's bias.
void unpack_bias_grad(const Attention &attention, const float *dbias, float *dtable, float *dmsg_bias);

}  // namespace msg_ms
