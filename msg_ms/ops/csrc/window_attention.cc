// Window attention and its gradients, one head of one window at a time; see window_attention.h.

#include "window_attention.h"

#include <algorithm>

#include "kernel.h"
#include "small_gemm.h"
#include "softmax.h"

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

enum Operand { kQuery, kKey, kValue };

// The workspaces of one thread for one head of one window.
class Head {
 public:
  explicit Head(const Attention &attention)
      : attn(attention),
        q(attn.padded_tokens * attn.padded_dim),
        k(attn.padded_tokens * attn.padded_dim),
        v(attn.padded_tokens * attn.padded_dim),
        transposed(attn.padded_dim * attn.padded_tokens),
        scores(attn.padded_tokens * attn.padded_tokens),
        inverse_sum(attn.padded_tokens) {
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

  void load(int64_t window) const {
    load_operand(window, kQuery, attn.scale, q);
    load_operand(window, kKey, 1.0f, k);
    load_operand(window, kValue, 1.0f, v);
    if (window + 1 < attn.windows) prefetch(window + 1);
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

  // Compute the attention weights into `scores`; unless `normalized`, they lack the factors in `inverse_sum`.
  template <bool normalized>
  void attend() {
    transpose(k, transposed);
    const int64_t queries = attn.queries, columns = attn.padded_tokens;
    small_gemm(queries, columns, attn.head_dim, q, attn.padded_dim, 1, transposed, columns, scores, columns);
    float *rows = scores, *factors = inverse_sum;
    with_row_vectors(columns, [&](auto vectors) {
      for (int64_t i = 0; i < queries; ++i) {
        factors[i] = softmax<decltype(vectors)::value, normalized>(rows + i * columns, bias + i * columns, columns);
      }
    });
  }

  const Attention &attn;
  int64_t h = -1;
  const float *bias = nullptr;
  Workspace q, k, v, transposed, scores, inverse_sum;

 private:
  // Load queries, keys or values, plus their bias, times factor, as (tokens, padded_dim).
  void load_operand(int64_t window, int operand, float factor, float *to) const {
    const float *operand_bias = attn.qkv_bias + operand * attn.channels() + h * attn.head_dim;
    const float *from = token(attn.qkv, window, 0, operand);
    float *copy = attn.saved == nullptr ? nullptr : saved(window, operand);
    const int64_t tokens = attn.tokens, padded_dim = attn.padded_dim, head_dim = attn.head_dim;
    const int64_t row_stride = 3 * attn.channels();
    for_each_vector(head_dim, [&](int64_t c, int64_t n) {
      const Vec b = load_lanes(operand_bias + c, n);
      for (int64_t i = 0; i < tokens; ++i) {
        const Vec value = (load_lanes(from + i * row_stride + c, n) + b) * factor;
        store(to + i * padded_dim + c, value);
        if (copy != nullptr) store_lanes(copy + i * head_dim + c, value, n);
      }
    });
  }

  void load_saved_operand(int64_t window, int operand, float *to) const {
    const float *from = saved(window, operand);
    const int64_t tokens = attn.tokens, padded_dim = attn.padded_dim, head_dim = attn.head_dim;
    for (int64_t i = 0; i < tokens; ++i) {
      for_each_vector(head_dim, [&](int64_t c, int64_t n) {
        store(to + i * padded_dim + c, load_lanes(from + i * head_dim + c, n));
      });
    }
  }

  void prefetch(int64_t window) const {
    for (int64_t i = 0; i < attn.tokens; ++i) {
      for (int operand = 0; operand < 3; ++operand) {
        msg_ms::prefetch(token(attn.qkv, window, i, operand), attn.head_dim);
      }
    }
  }
};

// Call body(window) for a range of the (head, window) pairs: a few windows with the first head, the same windows with the
// next head, ... so that both the windows and the head's bias are in the cache when they are needed again.
template <typename Body>
void for_each_window(Head &head, int64_t begin, int64_t end, const Body &body) {
  constexpr int64_t kBlock = 4;
  const Attention &attn = head.attn;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t first = i / (kBlock * attn.heads) * kBlock, size = std::min(kBlock, attn.windows - first);
    const int64_t h = (i - first * attn.heads) / size;
    if (h != head.h) head.select(h);
    body(first + (i - first * attn.heads) % size);
  }
}

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
    head.attend<true>();
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
    Head head(attn);
    const int64_t queries = attn.queries, padded_dim = attn.padded_dim;
    Workspace result(queries * padded_dim);
    for_each_window(head, begin, end, [&](int64_t window) {
      head.load(window);
      head.attend<false>();
      small_gemm(queries, padded_dim, attn.tokens, head.scores, attn.padded_tokens, 1, head.v, padded_dim, result, padded_dim);
      for (int64_t i = 0; i < queries; ++i) {
        float *to = out + (window * queries + i) * attn.channels() + head.h * attn.head_dim;
        const float *from = result + i * padded_dim, factor = head.inverse_sum[i];
        for_each_vector(attn.head_dim, [&](int64_t c, int64_t n) { store_lanes(to + c, load(from + c) * factor, n); });
      }
    });
  });
}

void attend_grad(const Attention &attn, const float *dout, float *dqkv, float *dbias, float *dqkv_bias) {
  parallel_for(attn.heads * attn.windows, 1, [&](int thread, int64_t begin, int64_t end) {
    HeadGradient gradient(attn, dout, dqkv, dbias + thread * attn.bias_size(), dqkv_bias + thread * 3 * attn.channels());
    for_each_window(gradient.head, begin, end, [&](int64_t window) { gradient.run(window); });
  });
}

void pack_bias(const Attention &attn, const float *table, const float *msg_bias, float *bias) {
  parallel_for(attn.heads, 4, [&](int, int64_t begin, int64_t end) {
    for (int64_t h = begin; h < end; ++h) {
      float *rows = bias + h * attn.tokens * attn.padded_tokens;
      for (int64_t i = 0; i < attn.tokens; ++i) {
        rows[i * attn.padded_tokens] = msg_bias[h * 2];
        for (int64_t j = attn.tokens; j < attn.padded_tokens; ++j) rows[i * attn.padded_tokens + j] = -1e30f;
      }
      for (int64_t j = 0; j < attn.tokens; ++j) rows[j] = msg_bias[h * 2 + 1];
      for_each_offset(attn, [&](int64_t row, int64_t column, int64_t table_row) {
        rows[row * attn.padded_tokens + column] = table[table_row * attn.heads + h];
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

}  // namespace msg_ms
