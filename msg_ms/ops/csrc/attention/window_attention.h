// Multi-head self-attention inside each window, softmax(scale * q k^T + bias) v, and its gradients.
//
// Scores stay in the first-level cache: one head of one window at a time, nothing of size tokens^2 reaches main memory.
#pragma once

#include <cstdint>

#include "base/vector.h"

namespace msg_ms {

struct Attention {
  int64_t windows, tokens, heads, head_dim, window_size;  // tokens = window_size^2 + 1, the MSG token first
  float scale;
  const float *qkv, *qkv_bias;  // (windows, tokens, 3 * channels), (3 * channels,): queries, keys, values, head by head
  const float *bias;            // (heads, tokens, padded_tokens), by pack_bias (position_bias.h): by key in attend()
  float *saved;  // for backward, or null: (windows, heads, 3, tokens, head_dim) scaled queries, keys, values, with bias
  int64_t padded_tokens = round_up(tokens, kLanes), padded_dim = round_up(head_dim, kLanes);
  int64_t queries = tokens;  // the first tokens of a window, for which attend() computes outputs

  int64_t bias_size() const { return heads * tokens * padded_tokens; }
  int64_t channels() const { return heads * head_dim; }
  int64_t table_rows() const { return (2 * window_size - 1) * (2 * window_size - 1); }
};

// Compute out (windows, queries, channels); fill `saved` unless it is null.
void attend(const Attention &attention, float *out);

// Compute the gradient of qkv from `saved` and the output's gradient. Each thread adds to its own gradients of the
// position bias and of qkv's bias: dbias (num_threads(), heads, tokens, padded_tokens), dqkv_bias (num_threads(), 3 *
// channels).
void attend_grad(const Attention &attention, const float *dout, float *dqkv, float *dbias, float *dqkv_bias);

}  // namespace msg_ms
