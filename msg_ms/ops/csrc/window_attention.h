// softmax(scale * q k^T + bias) v in every window and head, and its gradients.
#pragma once

#include <cstdint>

#include "vector.h"

namespace msg_ms {

struct Attention {
  int64_t windows, tokens, heads, depth, side;  // tokens: side * side + 1; depth: channels per head
  float scale;
  const float *qkv, *qkv_bias;  // (windows, tokens, 3 * channels), (3 * channels,): queries, keys, values, head by head
  const float *bias;            // (heads, tokens, columns), see lay_out_bias
  float *kept;  // (windows, heads, 3, tokens, depth): scaled queries, keys and values, their bias included; or null
  int64_t columns = round_up(tokens, kLanes), lanes = round_up(depth, kLanes), rows = columns;  // of buffers

  int64_t biases() const { return heads * tokens * columns; }
  int64_t channels() const { return heads * depth; }
  int64_t offsets() const { return (2 * side - 1) * (2 * side - 1); }
};

// The position bias of the scores from ((2 * side - 1)^2, heads) and (heads, 2), see attention.py, with columns past the
// last token that the softmax leaves out: into (heads, tokens, columns).
void lay_out_bias(const Attention &attention, const float *table, const float *message, float *bias);

// out (windows, tokens, channels); fills `kept` if there is one.
void attend(const Attention &attention, float *out);

// The gradient of qkv, from `kept` and the result's gradient. Every part of a loop adds those of the position bias and of
// qkv's bias to its own place in `dbias` (threads(), heads, tokens, columns) and `dqkv_bias` (threads(), 3 * channels).
void attend_grad(const Attention &attention, const float *dout, float *dqkv, float *dbias, float *dqkv_bias);

// Adds what attend_grad gave of one part's position bias to the gradients of table and message.
void gather_bias(const Attention &attention, const float *dbias, float *dtable, float *dmessage);

}  // namespace msg_ms
