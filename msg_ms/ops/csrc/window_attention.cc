// softmax(scale * q k^T + bias) v in every window and head, and its gradients; see window_attention.py.
//
// One head of one window at a time, in buffers that stay in the first-level cache: no scores reach the memory.

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "gemm.h"
#include "kernel.h"

namespace msg_ms {
namespace {

struct Problem {
  int64_t windows, tokens, heads, depth;  // tokens: w * w + 1; depth: channels per head
  int64_t side;                           // w
  int64_t columns, lanes, rows;           // tokens and depth in whole vectors; rows of buffers, as many as columns
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
  p.rows = p.columns;
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

// Calls use(column, lanes of it) for rows of `depth` floats: whole vectors, then what is left.
template <typename Use>
inline void for_each_vector(int64_t depth, const Use &use) {
  int64_t c = 0;
  for (; c + kLanes <= depth; c += kLanes) use(c, int64_t{kLanes});
  if (c < depth) use(c, depth - c);
}

inline Vec load_lanes(const float *p, int64_t n) { return n == kLanes ? load(p) : load_part(p, n); }

inline void store_lanes(float *p, Vec v, int64_t n) { n == kLanes ? store(p, v) : store_part(p, v, n); }

// The softmax of row + bias in place, but for the factor 1 / sum, which it gives; with `whole` that is in, too.
// Rows of a few vectors stay in registers (kVectors), longer ones don't (0).
template <int kVectors, bool whole>
inline float softmax(float *row, const float *bias, int64_t columns) {
  const int64_t n = kVectors > 0 ? kVectors : columns / kLanes;
  Vec kept[kVectors > 0 ? kVectors : 1], most{}, total{};
#pragma GCC unroll 8
  for (int64_t j = 0; j < n; ++j) {
    const Vec s = load(row + j * kLanes) + load(bias + j * kLanes);
    if (kVectors > 0) kept[j] = s;
    else store(row + j * kLanes, s);
    most = j == 0 ? s : s > most ? s : most;
  }
  const float top = max(most);
#pragma GCC unroll 8
  for (int64_t j = 0; j < n; ++j) {
    const Vec e = exp_of_negative((kVectors > 0 ? kept[j] : load(row + j * kLanes)) - top);
    if (kVectors > 0) kept[j] = e;
    if (kVectors == 0 || !whole) store(row + j * kLanes, e);
    total += e;
  }
  const float inverse = 1.0f / sum(total);
  if (whole) {
#pragma GCC unroll 8
    for (int64_t j = 0; j < n; ++j) {
      store(row + j * kLanes, (kVectors > 0 ? kept[j] : load(row + j * kLanes)) * inverse);
    }
  }
  return inverse;
}

// The gradient d of a softmax's result becomes that of its scores, weight * (d - sum of weight * d), also added to `to`.
template <int kVectors>
inline void softmax_grad(const float *weight, float *d, float *to, int64_t columns) {
  const int64_t n = kVectors > 0 ? kVectors : columns / kLanes;
  Vec dot{};
#pragma GCC unroll 8
  for (int64_t j = 0; j < n; ++j) dot += load(weight + j * kLanes) * load(d + j * kLanes);
  const float mean = sum(dot);
#pragma GCC unroll 8
  for (int64_t j = 0; j < n; ++j) {
    const Vec ds = load(weight + j * kLanes) * (load(d + j * kLanes) - mean);
    store(d + j * kLanes, ds);
    store(to + j * kLanes, load(to + j * kLanes) + ds);
  }
}

// Calls use with the number of vectors in a row as a constant where it is small: windows of 4 and 7.
template <typename Use>
inline void with_vectors(int64_t columns, const Use &use) {
  switch (columns / kLanes) {
    case 2: return use(std::integral_constant<int, 2>());
    case 4: return use(std::integral_constant<int, 4>());
    default: return use(std::integral_constant<int, 0>());
  }
}

// The buffers that one thread works in.
class Head {
 public:
  explicit Head(const Problem &problem)
      : p(problem),
        q(p.rows * p.lanes),
        k(p.rows * p.lanes),
        v(p.rows * p.lanes),
        across(p.lanes * p.columns),
        scores(p.rows * p.columns),
        inverse(p.rows),
        biases(p.heads * p.tokens * p.columns),
        entries(p.offsets()),
        laid_out(p.heads, false) {}

  void choose(int64_t head) {
    h = head;
    bias = biases + h * p.tokens * p.columns;
    if (!laid_out[h]) lay_out();
    laid_out[h] = true;
  }

  const float *token(const float *qkv, int64_t window, int64_t i, int which) const {
    return qkv + ((window * p.tokens + i) * 3 + which) * p.channels() + h * p.depth;
  }

  // One of queries, keys and values with its bias, times factor: (tokens, lanes).
  void take(int64_t window, int which, float factor, float *to) const {
    const float *add = p.qkv_bias + which * p.channels() + h * p.depth;
    for_each_vector(p.depth, [&](int64_t c, int64_t n) {
      const Vec more = load_lanes(add + c, n);
      for (int64_t i = 0; i < p.tokens; ++i) {
        store(to + i * p.lanes + c, (load_lanes(token(p.qkv, window, i, which) + c, n) + more) * factor);
      }
    });
  }

  void fetch(int64_t window) const {
    for (int64_t i = 0; i < p.tokens; ++i) {
      for (int which = 0; which < 3; ++which) {
        const float *from = token(p.qkv, window, i, which);
        for (int64_t c = 0; c < p.depth; c += 16) __builtin_prefetch(from + c);
      }
    }
  }

  // (tokens, lanes) -> (lanes, columns)
  void turn(const float *from, float *to) const {
    Vec block[kLanes];
    for (int64_t i = 0; i < p.columns; i += kLanes) {
      for (int64_t c = 0; c < p.lanes; c += kLanes) {
#pragma GCC unroll 16
        for (int r = 0; r < kLanes; ++r) block[r] = load(from + (i + r) * p.lanes + c);
        transpose(block);
#pragma GCC unroll 16
        for (int r = 0; r < kLanes; ++r) store(to + (c + r) * p.columns + i, block[r]);
      }
    }
  }

  // Leaves the attention's weights in scores if `whole`, else lacking the factors in inverse.
  template <bool whole>
  void attend(int64_t window) {
    take(window, 0, p.scale, q);
    take(window, 1, 1.0f, k);
    take(window, 2, 1.0f, v);
    // Every head takes short pieces far apart, which the processor doesn't fetch ahead by itself.
    if (window + 1 < p.windows) fetch(window + 1);
    turn(k, across);
    product(p.tokens, p.columns, p.depth, q, p.lanes, 1, across, p.columns, scores, p.columns);
    const int64_t tokens = p.tokens, columns = p.columns;
    float *rows = scores, *inverses = inverse;
    with_vectors(columns, [&](auto vectors) {
      for (int64_t i = 0; i < tokens; ++i) {
        inverses[i] = softmax<decltype(vectors)::value, whole>(rows + i * columns, bias + i * columns, columns);
      }
    });
  }

  const Problem &p;
  int64_t h = -1;
  float *bias = nullptr;
  Buffer q, k, v, across, scores, inverse;

 private:
  // The bias of a head: (tokens, columns), with the columns past the last token out of the softmax's reach.
  void lay_out() {
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

  Memory biases, entries;
  std::vector<bool> laid_out;
};

// Calls body(window) for a range of the heads' windows: a few windows with the first head, the same with the next, ...
// so that both the windows and the head's bias are at hand when they are needed again.
template <typename Body>
void for_range(Head &head, int64_t begin, int64_t end, const Body &body) {
  constexpr int64_t kBlock = 4;
  const Problem &p = head.p;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t first = i / (kBlock * p.heads) * kBlock, size = std::min(kBlock, p.windows - first);
    const int64_t h = (i - first * p.heads) / size;
    if (h != head.h) head.choose(h);
    body(first + (i - first * p.heads) % size);
  }
}

void forward(const Problem &p, float *out) {
  parallel_for(p.heads * p.windows, 1, [&](int, int64_t begin, int64_t end) {
    Head head(p);
    Memory result(p.tokens * p.lanes);
    for_range(head, begin, end, [&](int64_t window) {
      head.attend<false>(window);
      product(p.tokens, p.lanes, p.tokens, head.scores, p.columns, 1, head.v, p.lanes, result, p.lanes);
      for (int64_t i = 0; i < p.tokens; ++i) {
        float *to = out + (window * p.tokens + i) * p.channels() + head.h * p.depth;
        const float *from = result + i * p.lanes, factor = head.inverse[i];
        for_each_vector(p.depth, [&](int64_t c, int64_t n) { store_lanes(to + c, load(from + c) * factor, n); });
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
        dbiases_(p.heads * p.tokens * p.columns),
        grad_(p.tokens * p.lanes) {}

  void run(int64_t window) {
    head.attend<true>(window);
    for (int64_t i = 0; i < p.tokens; ++i) {
      const float *from = dout_ + (window * p.tokens + i) * p.channels() + head.h * p.depth;
      float *to = dy_ + i * p.lanes;
      for_each_vector(p.depth, [&](int64_t c, int64_t n) { store(to + c, load_lanes(from + c, n)); });
    }
    // dv = weights^T dy
    product(p.tokens, p.lanes, p.tokens, head.scores, 1, p.columns, dy_, p.lanes, grad_, p.lanes);
    put(window, 2, 1.0f);
    // Through the softmax: ds = weights * (dw - sum of weights * dw), dw = dy v^T.
    head.turn(head.v, across_);
    product(p.tokens, p.columns, p.depth, dy_, p.lanes, 1, across_, p.columns, dscores_, p.columns);
    const int64_t tokens = p.tokens, columns = p.columns;
    const float *weights = head.scores;
    float *rows = dscores_, *sums = dbiases_ + head.h * tokens * columns;
    with_vectors(columns, [&](auto vectors) {
      for (int64_t i = 0; i < tokens; ++i) {
        softmax_grad<decltype(vectors)::value>(weights + i * columns, rows + i * columns, sums + i * columns, columns);
      }
    });
    // dq = scale * ds k, and dk = ds^T (scale * q)
    product(p.tokens, p.lanes, p.tokens, dscores_, p.columns, 1, head.k, p.lanes, grad_, p.lanes);
    put(window, 0, p.scale);
    product(p.tokens, p.lanes, p.tokens, dscores_, 1, p.columns, head.q, p.lanes, grad_, p.lanes);
    put(window, 1, 1.0f);
  }

  // Adds the heads' gradients of the position bias to the table's and the message's.
  void finish() {
    for (int64_t h = 0; h < p.heads; ++h) {
      const float *dbias = dbiases_ + h * p.tokens * p.columns;
      for_each_offset(p, [&](int64_t row, int64_t column, int64_t entry) {
        sums_.table[entry * p.heads + h] += dbias[row * p.columns + column];
      });
      for (int64_t i = 1; i < p.tokens; ++i) sums_.message[h * 2] += dbias[i * p.columns];
      for (int64_t j = 0; j < p.tokens; ++j) sums_.message[h * 2 + 1] += dbias[j];
    }
  }

  Head head;

 private:
  void put(int64_t window, int which, float factor) {
    float *total = sums_.qkv_bias + which * p.channels() + head.h * p.depth;
    for (int64_t i = 0; i < p.tokens; ++i) {
      float *to = const_cast<float *>(head.token(dqkv_, window, i, which));
      const float *from = grad_ + i * p.lanes;
      for_each_vector(p.depth, [&](int64_t c, int64_t n) {
        const Vec d = load(from + c) * factor;
        store_lanes(to + c, d, n);
        store_lanes(total + c, load_lanes(total + c, n) + d, n);
      });
    }
  }

  const Problem &p;
  const float *dout_;
  float *dqkv_;
  Sums sums_;
  Buffer dy_, across_, dscores_, dbiases_, grad_;
};

void backward(const Problem &p, const float *dout, float *dqkv, Sums gradients) {
  const int64_t table = p.offsets() * p.heads, message = 2 * p.heads, bias = 3 * p.channels();
  const int parts = threads();
  Buffer tables(parts * table), messages(parts * message), biases(parts * bias);
  parallel_for(p.heads * p.windows, 1, [&](int part, int64_t begin, int64_t end) {
    HeadGradient gradient(p, dout, dqkv, {tables + part * table, messages + part * message, biases + part * bias});
    for_range(gradient.head, begin, end, [&](int64_t window) { gradient.run(window); });
    gradient.finish();
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
