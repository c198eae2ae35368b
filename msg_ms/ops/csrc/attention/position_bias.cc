// The position bias of the attention scores, and the kernels that pack it for inference; see position_bias.h.

#include "attention/position_bias.h"

#include <algorithm>
#include <cmath>

#include "base/kernel.h"

namespace msg_ms {
namespace {

// Call body(row, column, table_row) for the entries of the position bias between two patch tokens.
template <typename Body>
void for_each_offset(const Attention &attn, const Body &body) {
  const int64_t w = attn.window_size;
  for (int64_t y = 0; y < w; ++y) {
    for (int64_t x = 0; x < w; ++x) {
      for (int64_t ky = 0; ky < w; ++ky) {
        const int64_t first = (y - ky + w - 1) * (2 * w - 1) + x + w - 1;
        for (int64_t kx = 0; kx < w; ++kx) body(1 + y * w + x, 1 + ky * w + kx, first - kx);
      }
    }
  }
}

}  // namespace

void pack_bias(const Attention &attn, const float *table, const float *msg_bias, bool by_key, float *bias) {
  const int64_t tokens = attn.tokens, columns = attn.padded_tokens;
  const int64_t query_stride = by_key ? 1 : columns, key_stride = by_key ? columns : 1;
  parallel_for(attn.heads, 4, [&](int, int64_t begin, int64_t end) {
    for (int64_t h = begin; h < end; ++h) {
      float *const rows = bias + h * tokens * columns;
      for (int64_t i = 0; i < tokens; ++i) {
        std::fill(rows + i * columns + tokens, rows + (i + 1) * columns, by_key ? 0.0f : -1e30f);
        rows[i * query_stride] = msg_bias[h * 2];
      }
      for (int64_t j = 0; j < tokens; ++j) rows[j * key_stride] = msg_bias[h * 2 + 1];
      for_each_offset(attn, [&](int64_t query, int64_t key, int64_t table_row) {
        rows[query * query_stride + key * key_stride] = table[table_row * attn.heads + h];
      });
    }
  });
}

void unpack_bias_grad(const Attention &attn, const float *dbias, float *dtable, float *dmsg_bias) {
  parallel_for(attn.heads, 4, [&](int, int64_t begin, int64_t end) {
    for (int64_t h = begin; h < end; ++h) {
      const float *rows = dbias + h * attn.tokens * attn.padded_tokens;
      for_each_offset(attn, [&](int64_t row, int64_t column, int64_t table_row) {
        dtable[table_row * attn.heads + h] += rows[row * attn.padded_tokens + column];
      });
      for (int64_t i = 1; i < attn.tokens; ++i) dmsg_bias[h * 2] += rows[i * attn.padded_tokens];
      for (int64_t j = 0; j < attn.tokens; ++j) dmsg_bias[h * 2 + 1] += rows[j];
    }
  });
}

namespace {

// Return the sizes of the attention that a table of position biases (table_rows, heads) belongs to, without its data.
Attention attention_of_table(const int64_t *shape) {
  const int64_t window_size = (std::lround(std::sqrt(static_cast<double>(shape[0]))) + 1) / 2;
  return {0, window_size * window_size + 1, shape[1], 1, window_size, 1.0f, nullptr, nullptr, nullptr, nullptr};
}

// Pack the position bias of a kernel's inputs (table, MSG bias) times `factor` by key into its output.
void pack_parameters(void **params, int *dims, int64_t **shapes, float factor) {
  const Attention attention = attention_of_table(shapes[0]);
  float *const bias = data(params, 2);
  std::memset(bias, 0, size(shapes[2], dims[2]) * sizeof(float));
  pack_bias(attention, data(params, 0), data(params, 1), true, bias);
  if (factor == 1.0f) return;
  for (int64_t i = 0; i < attention.bias_size(); ++i) bias[i] *= factor;
}

}  // namespace
}  // namespace msg_ms

// table ((2w-1)^2, heads), MSG bias (heads, 2, 1, 1) -> packed position bias (heads * n * n rounded up to 16,) for
// n = w^2 + 1
MSG_MS_KERNEL(pack_position_bias) {
  msg_ms::pack_parameters(params, dims, shapes, 1.0f);
  return 0;
}

// The same for the blocks in bfloat16.
MSG_MS_KERNEL(pack_position_bias_bfloat16) {
  msg_ms::pack_parameters(params, dims, shapes, msg_ms::kLog2E);
  return 0;
}
