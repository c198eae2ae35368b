// softmax(scale * q k^T + bias) v in every window and head, and its gradients; see window_attention.py.
//
// One head of one window at a time, in buffers that stay in the first-level cache: nothing of size N x N reaches memory.
// Heads are the outer loop, so that a thread lays the position bias of a head out once.

#include <cmath>

#include "gemm.h"
#include "kernel.h"

namespace msg_ms {
namespace {

struct Problem {
  int64_t windows, tokens, heads, depth;  // tokens: w * w + 1; depth: channels per head
  int64_t side;                           // w
  int64_t columns, lanes;                 // tokens and depth, rounded up to whole vectors
  const float *qkv, *qkv_bias, *table, *message;
  float scale;

  int64_t channels() const { return heads * depth; }
  int64_t offsets() const { return (2 * side - 1) * (2 * side - 1); }
};

Problem read(void **params, int64_t **shapes) {
  Problem p;
  p.windows = shapes[0][0];
  p.tokens = shapes[0][1];
  p.heads = shapes[2][1];
  p.depth = shapes[0][2] / 3 / p.heads;
  p.side = std::lround(std::sqrt(static_cast<double>(p.tokens - 1)));
  p.columns = round_up(p.tokens, kLanes);
  p.lanes = round_up(p.depth, kLanes);
  p.qkv = data(params, 0);
  p.qkv_bias = data(params, 1);
  p.table = data(params, 2);
  p.message = data(params, 3);
  p.scale = data(params, 4)[0];
  return p;
}

// Calls use(row, column, entry) for the window tokens' entries of the bias; entry counts rows of the table.
template <typename Use>
void for_each_offset(const Problem &p, const Use &use) {
  const int64_t w = p.side;
  for (int64_t y = 0; y < w; ++y) {
    for (int64_t x = 0; x < w; ++x) {
      for (int64_t ky = 0; ky < w; ++ky) {
        const int64_t first = (y - ky + w - 1) * (2 * w - 1) + x + w - 1;
        for (int64_t kx = 0; kx < w; ++kx) use(1 + y * w + x, 1 + ky * w + kx, first - kx);
      }
    }
  }
}

class Head {
 public:
  explicit Head(const Problem &problem)
      : p(problem),
        bias(p.tokens * p.columns),
        q(p.tokens * p.lanes),
        k(p.tokens * p.lanes),
        v(p.tokens * p.lanes),
        across(p.lanes * p.columns),
        scores(p.tokens * p.columns),
        entries(p.offsets()) {}

  // Lays out the bias of a head: (tokens, columns), with the columns past the last token out of the softmax's reach.
  void choose(int64_t head) {
    h = head;
    const float to_message = p.message[h * 2], from_message = p.message[h * 2 + 1];
    for (int64_t i = 0; i < p.offsets(); ++i) entries[i] = p.table[i * p.heads + h];
    for (int64_t i = 0; i < p.tokens; ++i) {
      float *row = bias + i * p.columns;
      row[0] = to_message;
      for (int64_t j = p.tokens; j < p.columns; ++j) row[j] = -1e30f;
    }
    for (int64_t j = 0; j < p.tokens; ++j) bias[j] = from_message;
    for_each_offset(p, [&](int64_t row, int64_t column, int64_t entry) { bias[row * p.columns + column] = entries[entry]; });
  }

  const float *token(const float *qkv, int64_t window, int64_t i, int which) const {
    return qkv + ((window * p.tokens + i) * 3 + which) * p.channels() + h * p.depth;
  }

  // One of queries, keys and values with its bias, times factor: (tokens, lanes).
  void take(int64_t window, int which, float factor, float *to) const {
    const float *add = p.qkv_bias + which * p.channels() + h * p.depth;
    for (int64_t i = 0; i < p.tokens; ++i) {
      const float *from = token(p.qkv, window, i, which);
      float *row = to + i * p.lanes;
      for (int64_t c = 0; c < p.depth; ++c) row[c] = (from[c] + add[c]) * factor;
    }
  }

  // (tokens, lanes) -> (depth, columns)
  void transpose(const float *from, float *to) const {
    for (int64_t c = 0; c < p.depth; ++c) {
      for (int64_t i = 0; i < p.tokens; ++i) to[c * p.columns + i] = from[i * p.lanes + c];
    }
  }

  // Leaves e^(score - row's maximum) in scores and gives use(row, 1 / row's sum).
  template <typename Use>
  void attend(int64_t window, const Use &use) {
    take(window, 0, p.scale, q);
    take(window, 1, 1.0f, k);
    take(window, 2, 1.0f, v);
    transpose(k, across);
    product(p.tokens, p.columns, p.depth, q, p.lanes, 1, across, p.columns, scores, p.columns);
    for (int64_t i = 0; i < p.tokens; ++i) {
      float *row = scores + i * p.columns;
      const float *add = bias + i * p.columns;
      Vec most = load(row) + load(add);
      store(row, most);
      for (int64_t j = kLanes; j < p.columns; j += kLanes) {
        const Vec s = load(row + j) + load(add + j);
        store(row + j, s);
        most = s > most ? s : most;
      }
      const float top = max(most);
      Vec total{};
      for (int64_t j = 0; j < p.columns; j += kLanes) {
        const Vec e = exp_of_negative(load(row + j) - top);
        store(row + j, e);
        total += e;
      }
      use(i, 1.0f / sum(total));
    }
  }

  const Problem &p;
  int64_t h = -1;
  Buffer bias, q, k, v, across, scores, entries;
};

// Calls body(head, window) for a range of the heads' windows, head by head.
template <typename Body>
void for_range(Head &head, int64_t begin, int64_t end, const Body &body) {
  for (int64_t i = begin; i < end; ++i) {
    const int64_t h = i / head.p.windows;
    if (h != head.h) head.choose(h);
    body(i % head.p.windows);
  }
}

void forward(const Problem &p, float *out) {
  parallel_for(p.heads * p.windows, 1, [&](int, int64_t begin, int64_t end) {
    Head head(p);
    Buffer result(p.tokens * p.lanes), inverse(p.tokens);
    for_range(head, begin, end, [&](int64_t window) {
      head.attend(window, [&](int64_t i, float inverse_sum) { inverse[i] = inverse_sum; });
      product(p.tokens, p.lanes, p.tokens, head.scores, p.columns, 1, head.v, p.lanes, result, p.lanes);
      for (int64_t i = 0; i < p.tokens; ++i) {
        float *to = out + (window * p.tokens + i) * p.channels() + head.h * p.depth;
        const float *from = result + i * p.lanes;
        for (int64_t c = 0; c < p.depth; ++c) to[c] = from[c] * inverse[i];
      }
    });
  });
}

// What a thread sums over its windows.
struct Sums {
  float *table, *message, *qkv_bias;
};

class HeadGradient {
 public:
  HeadGradient(const Problem &problem, const float *dout, float *dqkv, Sums sums)
      : head(problem),
        p(problem),
        dout_(dout),
        dqkv_(dqkv),
        sums_(sums),
        dy_(p.tokens * p.lanes),
        across_(p.lanes * p.columns),
        dscores_(p.tokens * p.columns),
        dbias_(p.tokens * p.columns),
        grad_(p.tokens * p.lanes) {}

  void run(int64_t window) {
    if (summed_ != head.h) flush();
    summed_ = head.h;
    head.attend(window, [&](int64_t i, float inverse_sum) {
      float *row = head.scores + i * p.columns;
      for (int64_t j = 0; j < p.columns; j += kLanes) store(row + j, load(row + j) * inverse_sum);
    });
    for (int64_t i = 0; i < p.tokens; ++i) {
      const float *from = dout_ + (window * p.tokens + i) * p.channels() + head.h * p.depth;
      for (int64_t c = 0; c < p.depth; ++c) dy_[i * p.lanes + c] = from[c];
    }
    // dv = weights^T dy
    product(p.tokens, p.lanes, p.tokens, head.scores, 1, p.columns, dy_, p.lanes, grad_, p.lanes);
    put(window, 2, 1.0f);
    // Through the softmax: ds = weights * (dw - sum of weights * dw), dw = dy v^T.
    head.transpose(head.v, across_);
    product(p.tokens, p.columns, p.depth, dy_, p.lanes, 1, across_, p.columns, dscores_, p.columns);
    for (int64_t i = 0; i < p.tokens; ++i) {
      const float *weight = head.scores + i * p.columns;
      float *row = dscores_ + i * p.columns, *add = dbias_ + i * p.columns;
      Vec dot{};
      for (int64_t j = 0; j < p.columns; j += kLanes) dot += load(weight + j) * load(row + j);
      const float mean = sum(dot);
      for (int64_t j = 0; j < p.columns; j += kLanes) {
        const Vec d = load(weight + j) * (load(row + j) - mean);
        store(row + j, d);
        store(add + j, load(add + j) + d);
      }
    }
    // dq = scale * ds k, and dk = ds^T (scale * q)
    product(p.tokens, p.lanes, p.tokens, dscores_, p.columns, 1, head.k, p.lanes, grad_, p.lanes);
    put(window, 0, p.scale);
    product(p.tokens, p.lanes, p.tokens, dscores_, 1, p.columns, head.q, p.lanes, grad_, p.lanes);
    put(window, 1, 1.0f);
  }

  // Adds the head's gradient of the position bias to the table's and the message's.
  void flush() {
    if (summed_ < 0) return;
    for_each_offset(p, [&](int64_t row, int64_t column, int64_t entry) {
      sums_.table[entry * p.heads + summed_] += dbias_[row * p.columns + column];
    });
    for (int64_t i = 1; i < p.tokens; ++i) sums_.message[summed_ * 2] += dbias_[i * p.columns];
    for (int64_t j = 0; j < p.tokens; ++j) sums_.message[summed_ * 2 + 1] += dbias_[j];
    std::memset(dbias_, 0, p.tokens * p.columns * sizeof(float));
  }

  Head head;

 private:
  void put(int64_t window, int which, float factor) {
    float *total = sums_.qkv_bias + which * p.channels() + head.h * p.depth;
    for (int64_t i = 0; i < p.tokens; ++i) {
      float *to = const_cast<float *>(head.token(dqkv_, window, i, which));
      const float *from = grad_ + i * p.lanes;
      for (int64_t c = 0; c < p.depth; ++c) {
        to[c] = from[c] * factor;
        total[c] += to[c];
      }
    }
  }

  const Problem &p;
  const float *dout_;
  float *dqkv_;
  Sums sums_;
  int64_t summed_ = -1;
  Buffer dy_, across_, dscores_, dbias_, grad_;
};

void backward(const Problem &p, const float *dout, float *dqkv, Sums gradients) {
  const int64_t table = p.offsets() * p.heads, message = 2 * p.heads, bias = 3 * p.channels();
  const int parts = threads();
  Buffer tables(parts * table), messages(parts * message), biases(parts * bias);
  parallel_for(p.heads * p.windows, 1, [&](int part, int64_t begin, int64_t end) {
    HeadGradient gradient(p, dout, dqkv, {tables + part * table, messages + part * message, biases + part * bias});
    for_range(gradient.head, begin, end, [&](int64_t window) { gradient.run(window); });
    gradient.flush();
  });
  add_parts(tables, parts, table, gradients.table);
  add_parts(messages, parts, message, gradients.message);
  add_parts(biases, parts, bias, gradients.qkv_bias);
}

}  // namespace
}  // namespace msg_ms

// qkv (windows, N, 3C), its bias (3C,), table ((2w-1)^2, heads), message (heads, 2, 1, 1), scale (1,) -> (windows, N, C)
MSG_MS_KERNEL(window_attention) {
  msg_ms::forward(msg_ms::read(params, shapes), msg_ms::data(params, 5));
  return 0;
}

// The same five and the result's gradient -> gradients of qkv, its bias, table and message
MSG_MS_KERNEL(window_attention_grad) {
  using msg_ms::data;
  msg_ms::backward(msg_ms::read(params, shapes), data(params, 5), data(params, 6),
                   {data(params, 8), data(params, 9), data(params, 7)});
  return 0;
}
