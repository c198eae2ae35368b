// Window attention in bfloat16; see attention_bfloat16.h.

#include "attention/attention_bfloat16.h"

#include <algorithm>

#include "attention/position_bias.h"
#include "attention/transposed_attention.h"
#include "gemm/micro_kernel_bfloat16.h"

namespace msg_ms {
namespace {

// 2^x for x <= 0, relative error 8e-5 (bfloat16 has 2e-3). Inputs below -126 (the end of the float range) are clamped.
MSG_MS_INLINE inline Vec short_exp2(Vec x) {
  x = -126.0f > x ? Vec{} - 126.0f : x;
  // Adding 1.5 * 2^23 puts the nearest integer to x into the low bits, and 127 more the exponent of its power.
  constexpr float kShift = 12582912.0f + 127.0f;
  const Vec shifted = x + kShift;
  const Vec r = x - (shifted - kShift);
  const Vec p = ((r * 0.05517161f + 0.24261114f) * r + 0.69326099f) * r + 0.99992807f;
  return p * (Vec)((IntVec)shifted << 23);
}

// The workspaces of one thread for one head of one window, and up to kMaxTileVectors vectors of its queries at a time.
//
// Weights and outputs are transposed like the scores, see transposed_attention.h: two rows of weights are pairs of the
// second product.
class BFloat16Head {
 public:
  BFloat16Head(const BFloat16Attention &attention, const BFloat16Rows &out)
      : attn(attention),
        out_(out),
        pairs(attn.head_dim / 2),
        queries(round_up(pairs, kLanes) * kMaxWidth),
        values(pair_count(attn.tokens) * attn.padded_dim),
        scores(2 * pair_count(attn.tokens) * kMaxWidth),
        outputs(round_up(pairs, kLanes) * kMaxWidth) {}

  void run(int64_t window, int64_t head) {
    load_values(operand(window, head, 2));
    for_each_query_panel(attn.queries, [&](auto vectors, int64_t first) { run_panel<vectors>(window, head, first); });
  }

 private:
  static constexpr int64_t kMaxWidth = kMaxTileVectors * kLanes;

  const float *operand(int64_t window, int64_t head, int64_t which) const {
    return attn.qkv.row(window * attn.tokens) + (which * attn.heads + head) * pairs;
  }

  // Compute the outputs of the queries from `first`.
  template <int kVectors>
  void run_panel(int64_t window, int64_t head, int64_t first) {
    constexpr int64_t kWidth = kVectors * kLanes;
    const int64_t tokens = attn.tokens, columns = attn.padded_tokens;
    const int64_t n = std::min(kWidth, attn.queries - first);
    load_queries<kWidth>(operand(window, head, 0) + first * attn.qkv.stride, attn.qkv.stride, n, pairs, queries,
                         unchanged);
    const float scale = attn.scale * kLog2E, *const bias = attn.bias + head * tokens * columns + first;
    float *const rows = scores;
    Vec largest[kVectors], total[kVectors] = {};
    multiply_panel<kVectors, BFloat16Arithmetic>(
      tokens, pairs, operand(window, head, 1), attn.qkv.stride, 1, queries, kWidth, NoPrefetch(),
      [&](int64_t i, const auto &tile) MSG_MS_INLINE { store_scores(tile, i, scale, bias, columns, rows, largest); });
    // Weights 2^(score - largest), in pairs in the place of the scores. Their sums are used by the outputs.
    if (tokens % 2 != 0) {
      for (int v = 0; v < kVectors; ++v) store(rows + tokens * kWidth + v * kLanes, Vec{} - 1e30f);
    }
    for (int64_t i = 0; i < tokens; i += 2) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        const float *from = rows + i * kWidth + v * kLanes;
        const Vec even = short_exp2(load(from) - largest[v]), odd = short_exp2(load(from + kWidth) - largest[v]);
        total[v] += even + odd;
        store(rows + i / 2 * kWidth + v * kLanes, BFloat16Arithmetic::round_pair(even, odd));
      }
    }
    for (int v = 0; v < kVectors; ++v) total[v] = 1.0f / total[v];
    multiply_weights<kVectors>(total);
    BFloat16 *const to = out_.at(window * attn.queries + first, head * attn.head_dim);
    store_outputs<kWidth>(outputs, n, pairs, reinterpret_cast<float *>(to), out_.stride, unchanged);
  }

  // Compute `outputs` (pairs, width): the values' channels in pairs, times the weights, times `factors`.
  template <int kVectors>
  void multiply_weights(const Vec (&factors)[kVectors]) {
    constexpr int64_t kWidth = kVectors * kLanes;
    int64_t c = 0;
    const auto run_tiles = [&](auto rows) {
      NoPrefetch prefetch;
      for (; c + rows <= attn.head_dim; c += rows) {
        multiply_tile<rows, kVectors, BFloat16Arithmetic>(
          ZeroStart(), pair_count(attn.tokens), values + c, 1, attn.padded_dim, scores, kWidth, prefetch,
          [&](const auto &tile) MSG_MS_INLINE {
#pragma GCC unroll 16
            for (int r = 0; r < rows; r += 2) {
#pragma GCC unroll 8
              for (int v = 0; v < kVectors; ++v) {
                store(outputs + (c + r) / 2 * kWidth + v * kLanes,
                      BFloat16Arithmetic::round_pair(tile[r][v] * factors[v], tile[r + 1][v] * factors[v]));
              }
            }
          });
      }
    };
    run_tiles(std::integral_constant<int, 4>());
    run_tiles(std::integral_constant<int, 2>());
  }

  // Leave the vectors of a column as they are, for load_queries() and store_outputs().
  static auto unchanged(int64_t, int64_t) {
    return [](Vec v) MSG_MS_INLINE { return v; };
  }

  // Interleave the values of tokens 2j and 2j + 1: (tokens, head_dim) to pairs (tokens / 2, padded_dim).
  void load_values(const float *from) {
    const int64_t tokens = attn.tokens, dim = attn.head_dim, padded_dim = attn.padded_dim;
    UIntVec *const to = reinterpret_cast<UIntVec *>(static_cast<float *>(values));
    const auto row = [&](int64_t i) { return reinterpret_cast<const BFloat16 *>(from + i * attn.qkv.stride); };
    const auto part = [&](int64_t i, int64_t c) {
      BFloat16Vec v{};
      const int64_t n = std::min<int64_t>(kLanes, dim - c);
      if (i < tokens) n == kLanes ? std::memcpy(&v, row(i) + c, sizeof(v)) : std::memcpy(&v, row(i) + c, n * 2);
      return __builtin_convertvector(v, UIntVec);
    };
    for (int64_t i = 0; i < tokens; i += 2) {
      for (int64_t c = 0; c < padded_dim; c += kLanes) {
        const UIntVec pair = part(i, c) | part(i + 1, c) << 16;
        std::memcpy(&to[(i / 2 * padded_dim + c) / kLanes], &pair, sizeof(pair));
      }
    }
  }

  const BFloat16Attention &attn;
  const BFloat16Rows &out_;
  const int64_t pairs;
  const Workspace queries, values, scores, outputs;
};

}  // namespace

void attend_bfloat16(const BFloat16Attention &attn, const BFloat16Rows &out) {
  parallel_for(attn.windows * attn.heads, 1, [&](int, int64_t begin, int64_t end) {
    BFloat16Head worker(attn, out);
    for_each_window(attn.windows, attn.heads, begin, end, [&](int64_t window, int64_t h) { worker.run(window, h); });
  });
}

}  // namespace msg_ms
