// Window attention and its gradients, one head of one window at a time; see window_attention.h.

#include "attention/window_attention.h"

#include <algorithm>

#include "attention/transposed_attention.h"
#include "base/kernel.h"
#include "base/softmax.h"
#include "gemm/small_gemm.h"

namespace msg_ms {
namespace {

enum Operand { kQuery, kKey, kValue };

// The workspaces of one thread for the recomputed weights of one head of one window.
class Head {
 public:
  explicit Head(const Attention &attention)
      : attn(attention),
        q(attn.padded_tokens * attn.padded_dim),
        k(attn.padded_tokens * attn.padded_dim),
        v(attn.padded_tokens * attn.padded_dim),
        transposed(attn.padded_dim * attn.padded_tokens),
        scores(attn.padded_tokens * attn.padded_tokens) {
    // Zero the padding that products read and loads don't write: rows past the last token, lanes past the last channel.
    for (float *rows : {(float *)q, (float *)k, (float *)v}) {
      const int64_t written = attn.head_dim < attn.padded_dim ? 0 : attn.tokens * attn.padded_dim;
      std::memset(rows + written, 0, (attn.padded_tokens * attn.padded_dim - written) * sizeof(float));
    }
  }

  void select(int64_t head) {
    h = head;
    bias = attn.bias + h * attn.tokens * attn.padded_tokens;
  }

  // The head's channels of one token, in an array of the shape of qkv.
  const float *token(const float *qkv, int64_t window, int64_t i, int operand) const {
    return qkv + ((window * attn.tokens + i) * 3 + operand) * attn.channels() + h * attn.head_dim;
  }

  float *saved(int64_t window, int operand) const {
    return attn.saved + ((window * attn.heads + h) * 3 + operand) * attn.tokens * attn.head_dim;
  }

  void load_saved(int64_t window) const {
    load_saved_operand(window, kQuery, q);
    load_saved_operand(window, kKey, k);
    load_saved_operand(window, kValue, v);
  }

  // (tokens, padded_dim) -> (padded_dim, padded_tokens)
  void transpose(const float *from, float *to) const {
    Vec block[kLanes];
    for (int64_t i = 0; i < attn.padded_tokens; i += kLanes) {
      for (int64_t c = 0; c < attn.padded_dim; c += kLanes) {
#pragma GCC unroll 16
        for (int r = 0; r < kLanes; ++r) block[r] = msg_ms::load(from + (i + r) * attn.padded_dim + c);
        msg_ms::transpose(block);
#pragma GCC unroll 16
        for (int r = 0; r < kLanes; ++r) store(to + (c + r) * attn.padded_tokens + i, block[r]);
      }
    }
  }

  // Compute the attention weights into `scores`.
  void attend() {
    transpose(k, transposed);
    const int64_t tokens = attn.tokens, columns = attn.padded_tokens;
    small_gemm(tokens, columns, attn.head_dim, q, attn.padded_dim, 1, transposed, columns, scores, columns);
    float *rows = scores;
    with_row_vectors(columns, [&](auto vectors) {
      for (int64_t i = 0; i < tokens; ++i) {
        softmax<decltype(vectors)::value>(rows + i * columns, bias + i * columns, columns);
      }
    });
  }

  const Attention &attn;
  int64_t h = -1;
  const float *bias = nullptr;
  Workspace q, k, v, transposed, scores;

 private:
  void load_saved_operand(int64_t window, int operand, float *to) const {
    const float *from = saved(window, operand);
    const int64_t tokens = attn.tokens, padded_dim = attn.padded_dim, head_dim = attn.head_dim;
    for (int64_t i = 0; i < tokens; ++i) {
      for_each_vector(head_dim, [&](int64_t c, int64_t n) {
        store(to + i * padded_dim + c, load_lanes(from + i * head_dim + c, n));
      });
    }
  }
};

// The outputs of one head of one window, by one thread, for up to kMaxTileVectors vectors of its queries at a time.
//
// Weights and outputs are transposed like the scores, see transposed_attention.h: keys and values are used where they
// are.
class ForwardHead {
 public:
  ForwardHead(const Attention &attention, float *out)
      : attn(attention),
        out_(out),
        row_stride(3 * attn.channels()),
        queries(attn.padded_dim * kMaxWidth),
        scores(attn.tokens * kMaxWidth),
        outputs(attn.padded_dim * kMaxWidth) {}

  void run(int64_t window, int64_t head) {
    Operands operands;
    const float *const biases = attn.qkv_bias + head * attn.head_dim;
    for (int which : {kQuery, kKey, kValue}) {
      operands.rows[which] = token(window, head, 0, which);
      operands.bias[which] = biases + which * attn.channels();
    }
    if (attn.saved != nullptr) save(operands, window, head);
    if (window + 1 < attn.windows) prefetch(window + 1, head);
    for_each_query_panel(attn.queries,
                         [&](auto vectors, int64_t first) { run_panel<vectors>(operands, window, head, first); });
  }

 private:
  static constexpr int64_t kMaxWidth = kMaxTileVectors * kLanes;

  // Queries, keys and values (tokens, head_dim) in their place, to which the bias is to be added.
  struct Operands {
    const float *rows[3], *bias[3];
  };

  const float *token(int64_t window, int64_t head, int64_t i, int which) const {
    return attn.qkv + ((window * attn.tokens + i) * 3 + which) * attn.channels() + head * attn.head_dim;
  }

  // Save the operands with their bias, the queries scaled.
  void save(const Operands &operands, int64_t window, int64_t head) const {
    const int64_t tokens = attn.tokens, head_dim = attn.head_dim;
    for (int which : {kQuery, kKey, kValue}) {
      const float *const from = operands.rows[which], factor = which == kQuery ? attn.scale : 1.0f;
      float *const to = attn.saved + ((window * attn.heads + head) * 3 + which) * tokens * head_dim;
      for_each_vector(head_dim, [&](int64_t c, int64_t n) {
        const Vec bias = load_lanes(operands.bias[which] + c, n);
        for (int64_t i = 0; i < tokens; ++i) {
          store_lanes(to + i * head_dim + c, (load_lanes(from + i * row_stride + c, n) + bias) * factor, n);
        }
      });
    }
  }

  // Compute the outputs of the queries from `first`.
  template <int kVectors>
  void run_panel(const Operands &operands, int64_t window, int64_t head, int64_t first) {
    constexpr int64_t kWidth = kVectors * kLanes;
    const int64_t tokens = attn.tokens, columns = attn.padded_tokens, n = std::min(kWidth, attn.queries - first);
    const float *const bias = attn.bias + head * tokens * columns + first, scale = attn.scale;
    load_queries<kWidth>(operands.rows[kQuery] + first * row_stride, row_stride, n, attn.head_dim, queries,
                         adds(operands.bias[kQuery]));
    // The product of the keys' bias with each query, from which the scores start.
    Vec start[kVectors] = {};
    for (int64_t c = 0; c < attn.head_dim; ++c) {
      for (int v = 0; v < kVectors; ++v) start[v] += load(queries + c * kWidth + v * kLanes) * operands.bias[kKey][c];
    }
    float *const rows = scores, *const results = outputs;
    Vec largest[kVectors], total[kVectors] = {};
    multiply_panel<kVectors>(
      tokens, attn.head_dim, operands.rows[kKey], row_stride, 1, queries, kWidth, NoPrefetch(),
      [&](int64_t i, const auto &tile) MSG_MS_INLINE { store_scores(tile, i, scale, bias, columns, rows, largest); },
      start);
    for (int64_t i = 0; i < tokens; ++i) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        float *const at = rows + i * kWidth + v * kLanes;
        const Vec weight = exp_nonpositive(load(at) - largest[v]);
        total[v] += weight;
        store(at, weight);
      }
    }
    for (int v = 0; v < kVectors; ++v) total[v] = 1.0f / total[v];
    multiply_panel<kVectors>(attn.head_dim, tokens, operands.rows[kValue], 1, row_stride, rows, kWidth, NoPrefetch(),
                             [&](int64_t c, const auto &tile) MSG_MS_INLINE {
#pragma GCC unroll 16
                               for (int r = 0; r < row_count(tile); ++r) {
#pragma GCC unroll 8
                                 for (int v = 0; v < kVectors; ++v) {
                                   store(results + (c + r) * kWidth + v * kLanes, tile[r][v] * total[v]);
                                 }
                               }
                             });
    float *const to = out_ + (window * attn.queries + first) * attn.channels() + head * attn.head_dim;
    store_outputs<kWidth>(results, n, attn.head_dim, to, attn.channels(), adds(operands.bias[kValue]));
  }

  // Return the function that adds a bias to the vectors of a column, for load_queries() and store_outputs().
  static auto adds(const float *bias) {
    return [=](int64_t c, int64_t lanes) {
      const Vec added = load_lanes(bias + c, lanes);
      return [=](Vec v) MSG_MS_INLINE { return v + added; };
    };
  }

  void prefetch(int64_t window, int64_t head) const {
    for (int64_t i = 0; i < attn.tokens; ++i) {
      for (int which : {kQuery, kKey, kValue}) msg_ms::prefetch(token(window, head, i, which), attn.head_dim);
    }
  }

  const Attention &attn;
  float *const out_;
  const int64_t row_stride;
  const Workspace queries, scores, outputs;
};

class HeadGradient {
 public:
  HeadGradient(const Attention &attention, const float *dout, float *dqkv, float *dbias, float *dqkv_bias)
      : head(attention),
        attn(attention),
        dout_(dout),
        dqkv_(dqkv),
        dbias_(dbias),
        dqkv_bias_(dqkv_bias),
        dy_(attn.tokens * attn.padded_dim),
        transposed_(attn.padded_dim * attn.padded_tokens),
        dscores_(attn.tokens * attn.padded_tokens),
        grad_(attn.tokens * attn.padded_dim) {}

  void run(int64_t window) {
    const int64_t tokens = attn.tokens, columns = attn.padded_tokens, padded_dim = attn.padded_dim;
    head.load_saved(window);
    head.attend();
    for (int64_t i = 0; i < tokens; ++i) {
      const float *from = dout_ + (window * tokens + i) * attn.channels() + head.h * attn.head_dim;
      float *to = dy_ + i * padded_dim;
      for_each_vector(attn.head_dim, [&](int64_t c, int64_t n) { store(to + c, load_lanes(from + c, n)); });
    }
    // dv = weights^T dy
    small_gemm(tokens, padded_dim, tokens, head.scores, 1, columns, dy_, padded_dim, grad_, padded_dim);
    store_grad(window, kValue, 1.0f);
    // Through the softmax: ds = weights * (dw - sum of weights * dw), dw = dy v^T.
    head.transpose(head.v, transposed_);
    small_gemm(tokens, columns, attn.head_dim, dy_, padded_dim, 1, transposed_, columns, dscores_, columns);
    const float *weights = head.scores;
    float *rows = dscores_, *dbias = dbias_ + head.h * tokens * columns;
    with_row_vectors(columns, [&](auto vectors) {
      for (int64_t i = 0; i < tokens; ++i) {
        softmax_grad<decltype(vectors)::value>(weights + i * columns, rows + i * columns, dbias + i * columns, columns);
      }
    });
    // dq = scale * ds k, and dk = ds^T (scale * q)
    small_gemm(tokens, padded_dim, tokens, dscores_, columns, 1, head.k, padded_dim, grad_, padded_dim);
    store_grad(window, kQuery, attn.scale);
    small_gemm(tokens, padded_dim, tokens, dscores_, 1, columns, head.q, padded_dim, grad_, padded_dim);
    store_grad(window, kKey, 1.0f);
  }

  Head head;

 private:
  // Store factor times grad_ as the gradient of queries, keys or values, and add its column sums to that of their bias.
  void store_grad(int64_t window, int operand, float factor) {
    float *total = dqkv_bias_ + operand * attn.channels() + head.h * attn.head_dim;
    float *to = const_cast<float *>(head.token(dqkv_, window, 0, operand));
    const float *from = grad_;
    const int64_t tokens = attn.tokens, padded_dim = attn.padded_dim, row_stride = 3 * attn.channels();
    for_each_vector(attn.head_dim, [&](int64_t c, int64_t n) {
      Vec sum = load_lanes(total + c, n);
      for (int64_t i = 0; i < tokens; ++i) {
        const Vec d = load(from + i * padded_dim + c) * factor;
        store_lanes(to + i * row_stride + c, d, n);
        sum += d;
      }
      store_lanes(total + c, sum, n);
    });
  }

  const Attention &attn;
  const float *dout_;
  float *dqkv_;
  float *dbias_, *dqkv_bias_;
  ZeroedWorkspace dy_;
  Workspace transposed_, dscores_, grad_;
};

}  // namespace

void attend(const Attention &attn, float *out) {
  parallel_for(attn.heads * attn.windows, 1, [&](int, int64_t begin, int64_t end) {
    ForwardHead head(attn, out);
    for_each_window(attn.windows, attn.heads, begin, end, [&](int64_t window, int64_t h) { head.run(window, h); });
  });
}

void attend_grad(const Attention &attn, const float *dout, float *dqkv, float *dbias, float *dqkv_bias) {
  parallel_for(attn.heads * attn.windows, 1, [&](int thread, int64_t begin, int64_t end) {
    HeadGradient gradient(attn, dout, dqkv, dbias + thread * attn.bias_size(),
                          dqkv_bias + thread * 3 * attn.channels());
    for_each_window(attn.windows, attn.heads, begin, end, [&](int64_t window, int64_t h) {
      if (h != gradient.head.h) gradient.head.select(h);
      gradient.run(window);
    });
  });
}

}  // namespace msg_ms
