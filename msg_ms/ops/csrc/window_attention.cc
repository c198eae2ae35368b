// softmax(scale * q k^T + bias) v in every window and head, and its gradients; see window_attention.h.
//
// One head of one window at a time, in buffers that stay in the first-level cache: no scores reach the memory.

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "gemm.h"
#include "kernel.h"
#include "window_attention.h"

namespace msg_ms {
namespace {

// Calls use(row, column, entry) for the window tokens' entries of the bias; entry counts rows of the table.
template <typename Use>
void for_each_offset(const Attention &p, const Use &use) {
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
  explicit Head(const Attention &problem)
      : p(problem),
        q(p.rows * p.lanes),
        k(p.rows * p.lanes),
        v(p.rows * p.lanes),
        across(p.lanes * p.columns),
        scores(p.rows * p.columns),
        inverse(p.rows) {
    // What products read and nothing fills: rows past the last token, lanes past the last channel.
    for (float *rows : {(float *)q, (float *)k, (float *)v}) {
      const int64_t filled = p.depth < p.lanes ? 0 : p.tokens * p.lanes;
      std::memset(rows + filled, 0, (p.rows * p.lanes - filled) * sizeof(float));
    }
  }

  void choose(int64_t head) {
    h = head;
    bias = p.bias + h * p.tokens * p.columns;
  }

  const float *token(const float *qkv, int64_t window, int64_t i, int which) const {
    return qkv + ((window * p.tokens + i) * 3 + which) * p.channels() + h * p.depth;
  }

  float *kept(int64_t window, int which) const {
    return p.kept + ((window * p.heads + h) * 3 + which) * p.tokens * p.depth;
  }

  // One of queries, keys and values with its bias, times factor: (tokens, lanes).
  void take(int64_t window, int which, float factor, float *to) const {
    const float *add = p.qkv_bias + which * p.channels() + h * p.depth, *from = token(p.qkv, window, 0, which);
    float *copy = p.kept == nullptr ? nullptr : kept(window, which);
    const int64_t tokens = p.tokens, lanes = p.lanes, depth = p.depth, row = 3 * p.channels();
    for_each_vector(depth, [&](int64_t c, int64_t n) {
      const Vec more = load_lanes(add + c, n);
      for (int64_t i = 0; i < tokens; ++i) {
        const Vec value = (load_lanes(from + i * row + c, n) + more) * factor;
        store(to + i * lanes + c, value);
        if (copy != nullptr) store_lanes(copy + i * depth + c, value, n);
      }
    });
  }

  // The same as it was kept.
  void take_kept(int64_t window, int which, float *to) const {
    const float *from = kept(window, which);
    const int64_t tokens = p.tokens, lanes = p.lanes, depth = p.depth;
    for (int64_t i = 0; i < tokens; ++i) {
      for_each_vector(depth, [&](int64_t c, int64_t n) { store(to + i * lanes + c, load_lanes(from + i * depth + c, n)); });
    }
  }

  void fetch(int64_t window) const {
    for (int64_t i = 0; i < p.tokens; ++i) {
      for (int which = 0; which < 3; ++which) {
        msg_ms::fetch(token(p.qkv, window, i, which), p.depth);
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

  void take(int64_t window) const {
    take(window, 0, p.scale, q);
    take(window, 1, 1.0f, k);
    take(window, 2, 1.0f, v);
    if (window + 1 < p.windows) fetch(window + 1);
  }

  void take_kept(int64_t window) const {
    take_kept(window, 0, q);
    take_kept(window, 1, k);
    take_kept(window, 2, v);
  }

  // Leaves the attention's weights in scores if `whole`, else lacking the factors in inverse.
  template <bool whole>
  void attend() {
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

  const Attention &p;
  int64_t h = -1;
  const float *bias = nullptr;
  Memory q, k, v, across, scores, inverse;
};

// Calls body(window) for a range of the heads' windows: a few windows with the first head, the same with the next, ...
// so that both the windows and the head's bias are at hand when they are needed again.
template <typename Body>
void for_range(Head &head, int64_t begin, int64_t end, const Body &body) {
  constexpr int64_t kBlock = 4;
  const Attention &p = head.p;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t first = i / (kBlock * p.heads) * kBlock, size = std::min(kBlock, p.windows - first);
    const int64_t h = (i - first * p.heads) / size;
    if (h != head.h) head.choose(h);
    body(first + (i - first * p.heads) % size);
  }
}

class HeadGradient {
 public:
  HeadGradient(const Attention &problem, const float *dout, float *dqkv, float *dbias, float *dqkv_bias)
      : head(problem),
        p(problem),
        dout_(dout),
        dqkv_(dqkv),
        dbias_(dbias),
        dqkv_bias_(dqkv_bias),
        dy_(p.tokens * p.lanes),
        across_(p.lanes * p.columns),
        dscores_(p.tokens * p.columns),
        grad_(p.tokens * p.lanes) {}

  void run(int64_t window) {
    head.take_kept(window);
    head.attend<true>();
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
    float *rows = dscores_, *sums = dbias_ + head.h * tokens * columns;
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

  Head head;

 private:
  void put(int64_t window, int which, float factor) {
    float *total = dqkv_bias_ + which * p.channels() + head.h * p.depth;
    float *to = const_cast<float *>(head.token(dqkv_, window, 0, which));
    const float *from = grad_;
    const int64_t tokens = p.tokens, lanes = p.lanes, row = 3 * p.channels();
    for_each_vector(p.depth, [&](int64_t c, int64_t n) {
      Vec sum = load_lanes(total + c, n);
      for (int64_t i = 0; i < tokens; ++i) {
        const Vec d = load(from + i * lanes + c) * factor;
        store_lanes(to + i * row + c, d, n);
        sum += d;
      }
      store_lanes(total + c, sum, n);
    });
  }

  const Attention &p;
  const float *dout_;
  float *dqkv_;
  float *dbias_, *dqkv_bias_;
  Buffer dy_;
  Memory across_, dscores_, grad_;
};

}  // namespace

void attend(const Attention &p, float *out) {
  parallel_for(p.heads * p.windows, 1, [&](int, int64_t begin, int64_t end) {
    Head head(p);
    Memory result(p.tokens * p.lanes);
    for_range(head, begin, end, [&](int64_t window) {
      head.take(window);
      head.attend<false>();
      product(p.tokens, p.lanes, p.tokens, head.scores, p.columns, 1, head.v, p.lanes, result, p.lanes);
      for (int64_t i = 0; i < p.tokens; ++i) {
        float *to = out + (window * p.tokens + i) * p.channels() + head.h * p.depth;
        const float *from = result + i * p.lanes, factor = head.inverse[i];
        for_each_vector(p.depth, [&](int64_t c, int64_t n) { store_lanes(to + c, load(from + c) * factor, n); });
      }
    });
  });
}

void attend_grad(const Attention &p, const float *dout, float *dqkv, float *dbias, float *dqkv_bias) {
  parallel_for(p.heads * p.windows, 1, [&](int part, int64_t begin, int64_t end) {
    HeadGradient gradient(p, dout, dqkv, dbias + part * p.biases(), dqkv_bias + part * 3 * p.channels());
    for_range(gradient.head, begin, end, [&](int64_t window) { gradient.run(window); });
  });
}

void lay_out_bias(const Attention &p, const float *table, const float *message, float *bias) {
  parallel_for(p.heads, 4, [&](int, int64_t begin, int64_t end) {
    for (int64_t h = begin; h < end; ++h) {
      float *rows = bias + h * p.tokens * p.columns;
      for (int64_t i = 0; i < p.tokens; ++i) {
        rows[i * p.columns] = message[h * 2];
        for (int64_t j = p.tokens; j < p.columns; ++j) rows[i * p.columns + j] = -1e30f;
      }
      for (int64_t j = 0; j < p.tokens; ++j) rows[j] = message[h * 2 + 1];
      for_each_offset(p, [&](int64_t row, int64_t column, int64_t entry) {
        rows[row * p.columns + column] = table[entry * p.heads + h];
      });
    }
  });
}

void gather_bias(const Attention &p, const float *dbias, float *dtable, float *dmessage) {
  parallel_for(p.heads, 4, [&](int, int64_t begin, int64_t end) {
    for (int64_t h = begin; h < end; ++h) {
      const float *rows = dbias + h * p.tokens * p.columns;
      for_each_offset(p, [&](int64_t row, int64_t column, int64_t entry) {
        dtable[entry * p.heads + h] += rows[row * p.columns + column];
      });
      for (int64_t i = 1; i < p.tokens; ++i) dmessage[h * 2] += rows[i * p.columns];
      for (int64_t j = 0; j < p.tokens; ++j) dmessage[h * 2 + 1] += rows[j];
    }
  });
}

}  // namespace msg_ms
