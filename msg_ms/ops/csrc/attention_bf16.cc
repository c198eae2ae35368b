// Window attention in bfloat16; see attention_bf16.h.

#include "attention_bf16.h"

#include <algorithm>

#include "softmax.h"

namespace msg_ms {
namespace {

// The workspaces of one thread for one head of one window.
template <typename Arithmetic>
class HalfHead {
 public:
  HalfHead(const HalfAttention &attention, const HalfRows &out)
      : attn(attention),
        out_(out),
        pairs(attn.head_dim / 2),
        keys(round_up(pairs, kLanes) * attn.padded_tokens),
        values(pair_count(attn.tokens) * attn.padded_dim),
        scores(attn.tokens * attn.padded_tokens),
        inverse_sum(attn.tokens) {}

  void run(int64_t window, int64_t head) {
    const int64_t tokens = attn.tokens, columns = attn.padded_tokens;
    const float *const q = operand(window, head, 0);
    float *const rows = scores, *const factors = inverse_sum;
    load_keys(operand(window, head, 1));
    multiply(tokens, columns, pairs, q, attn.qkv.stride, keys, [&](int64_t i, int64_t j, int64_t width, const auto &tile)
             MSG_MS_INLINE { store_tile<false>(tile, {nullptr, 0, rows + i * columns + j, columns, width}); });
    const float *bias = attn.bias + head * tokens * columns;
    with_row_vectors(columns, [&](auto vectors) {
      for (int64_t i = 0; i < tokens; ++i) {
        float *row = rows + i * columns;
        factors[i] = softmax<decltype(vectors)::value, false>(row, bias + i * columns, columns);
        // The weights replace the scores from the start of the row.
        BFloat16 *weights = reinterpret_cast<BFloat16 *>(row);
        for (int64_t j = 0; j < columns; j += kLanes) store_rounded<Arithmetic>(weights + j, load(row + j), kLanes);
      }
    });
    load_values(operand(window, head, 2));
    multiply(tokens, attn.padded_dim, pair_count(tokens), rows, columns, values,
             [&](int64_t i, int64_t j, int64_t width, const auto &tile) MSG_MS_INLINE {
               store_output(window * tokens + i, head * attn.head_dim, j, width, factors + i, tile);
             });
  }

 private:
  const float *operand(int64_t window, int64_t head, int64_t which) const {
    return attn.qkv.row(window * attn.tokens) + (which * attn.heads + head) * pairs;
  }

  // Transpose keys (tokens, pairs) to (pairs, padded_tokens).
  void load_keys(const float *from) {
    Vec block[kLanes];
    float *const to = keys;
    for (int64_t i = 0; i < attn.padded_tokens; i += kLanes) {
      for (int64_t c = 0; c < pairs; c += kLanes) {
        const int64_t n = std::min<int64_t>(kLanes, pairs - c), rows = std::min<int64_t>(kLanes, attn.tokens - i);
        const float *first = from + i * attn.qkv.stride + c;
        if (rows == kLanes && n == kLanes) {
#pragma GCC unroll 16
          for (int r = 0; r < kLanes; ++r) block[r] = load(first + r * attn.qkv.stride);
        } else {
          for (int r = 0; r < kLanes; ++r) block[r] = r < rows ? load_lanes(first + r * attn.qkv.stride, n) : Vec{};
        }
        transpose(block);
#pragma GCC unroll 16
        for (int r = 0; r < kLanes; ++r) store(to + (c + r) * attn.padded_tokens + i, block[r]);
      }
    }
  }

  // Interleave the values of tokens 2j and 2j + 1: (tokens, head_dim) to pairs (tokens / 2, padded_dim).
  void load_values(const float *from) {
    const int64_t tokens = attn.tokens, dim = attn.head_dim, padded_dim = attn.padded_dim;
    UIntVec *const to = reinterpret_cast<UIntVec *>(static_cast<float *>(values));
    const auto row = [&](int64_t i) { return reinterpret_cast<const BFloat16 *>(from + i * attn.qkv.stride); };
    const auto part = [&](int64_t i, int64_t c) {
      HalfVec v{};
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

  // Multiply rows of pairs by b (depth, columns), whole vectors wide; call store(row, column, width, tile).
  template <typename Store>
  void multiply(int64_t rows, int64_t columns, int64_t depth, const float *a, int64_t a_stride, const float *b,
                const Store &store) {
    int64_t j = 0;
    const auto run_panels = [&](auto vectors) {
      constexpr int64_t kWidth = vectors * kLanes;
      for (; j + kWidth <= columns; j += kWidth) {
        multiply_panel<vectors, Arithmetic>(rows, depth, a, a_stride, 1, b + j, columns, NoPrefetch(),
                                            [&](int64_t i, const auto &tile) MSG_MS_INLINE { store(i, j, kWidth, tile); });
      }
    };
    run_panels(std::integral_constant<int, kMaxTileVectors>());
    run_panels(std::integral_constant<int, 2>());
    run_panels(std::integral_constant<int, 1>());
  }

  template <int kRows, int kVectors>
  MSG_MS_INLINE void store_output(int64_t i, int64_t first, int64_t column, int64_t, const float *factors,
                                  const Vec (&tile)[kRows][kVectors]) const {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        const int64_t c = column + v * kLanes, n = std::min<int64_t>(kLanes, attn.head_dim - c);
        const Vec result = tile[r][v] * factors[r];
        if (n > 0) store_rounded<Arithmetic>(out_.at(i + r, first + c), result, n);
      }
    }
  }

  const HalfAttention &attn;
  const HalfRows &out_;
  const int64_t pairs;
  const Workspace keys, values, scores, inverse_sum;
};

}  // namespace

template <typename Arithmetic>
void attend_bf16(const HalfAttention &attn, const HalfRows &out) {
  // Heads of a few windows in turn, so that windows and biases are in the cache when they are needed again.
  constexpr int64_t kBlock = 4;
  parallel_for(attn.windows * attn.heads, 1, [&](int, int64_t begin, int64_t end) {
    HalfHead<Arithmetic> worker(attn, out);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i / (kBlock * attn.heads) * kBlock, size = std::min(kBlock, attn.windows - first);
      worker.run(first + (i - first * attn.heads) % size, (i - first * attn.heads) / size);
    }
  });
}

template void attend_bf16<PortableBFloat16>(const HalfAttention &, const HalfRows &);
#if MSG_MS_BFLOAT16
template void attend_bf16<NativeBFloat16>(const HalfAttention &, const HalfRows &);
#endif

}  // namespace msg_ms
