// The parts of the forward pass of window attention that both precisions share.
//
// Scores are transposed: a row is a key, a column is a query. So maxima and sums of the softmax are those of vectors.
#pragma once

#include <algorithm>
#include <type_traits>

#include "gemm/micro_kernel.h"

namespace msg_ms {

// Call body(window, head) for a range of the (head, window) pairs: a few windows with the first head, the same windows
// with the next head, ... so that both the windows and the head's bias are in the cache when they are needed again.
template <typename Body>
void for_each_window(int64_t windows, int64_t heads, int64_t begin, int64_t end, const Body &body) {
  constexpr int64_t kBlock = 4;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t first = i / (kBlock * heads) * kBlock, size = std::min(kBlock, windows - first);
    body(first + (i - first * heads) % size, (i - first * heads) / size);
  }
}

// Call body(number of vectors as a compile-time constant, first query) for panels of the queries, the widest first.
template <typename Body>
void for_each_query_panel(int64_t queries, const Body &body) {
  const int64_t columns = round_up(queries, kLanes);
  int64_t first = 0;
  const auto run_panels = [&](auto vectors) {
    for (; first + vectors * kLanes <= columns; first += vectors * kLanes) body(vectors, first);
  };
  run_panels(std::integral_constant<int, kMaxTileVectors>());
  run_panels(std::integral_constant<int, 2>());
  run_panels(std::integral_constant<int, 1>());
}

// Store tile * scale + bias as the scores of the keys from row i, and update the largest score of each query.
template <int kRows, int kVectors>
MSG_MS_INLINE inline void store_scores(const Vec (&tile)[kRows][kVectors], int64_t i, float scale, const float *bias,
                                       int64_t bias_row_stride, float *scores, Vec (&largest)[kVectors]) {
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) {
    Vec maximum{};
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const Vec score = tile[r][v] * scale + load(bias + (i + r) * bias_row_stride + v * kLanes);
      maximum = r == 0 ? score : score > maximum ? score : maximum;
      store(scores + ((i + r) * kVectors + v) * kLanes, score);
    }
    largest[v] = i == 0 ? maximum : maximum > largest[v] ? maximum : largest[v];
  }
}

// Transpose n queries (n, columns), whose rows are `stride` apart, to (columns rounded up to kLanes, kWidth), with
// zeros in the other columns. finish(c, lanes) returns the function that finishes the vectors from column c.
template <int64_t kWidth, typename Finish>
inline void load_queries(const float *from, int64_t stride, int64_t n, int64_t columns, float *to,
                         const Finish &finish) {
  Vec block[kLanes];
  for_each_vector(columns, [&](int64_t c, int64_t lanes) {
    const auto finished = finish(c, lanes);
    for (int64_t i = 0; i < kWidth; i += kLanes) {
      const int64_t count = std::min<int64_t>(kLanes, n - i);
      const float *row = from + i * stride + c;
      if (count == kLanes && lanes == kLanes) {
#pragma GCC unroll 16
        for (int r = 0; r < kLanes; ++r) block[r] = finished(load(row + r * stride));
      } else {
        for (int r = 0; r < kLanes; ++r) block[r] = r < count ? finished(load_lanes(row + r * stride, lanes)) : Vec{};
      }
      transpose(block);
#pragma GCC unroll 16
      for (int r = 0; r < kLanes; ++r) store(to + (c + r) * kWidth + i, block[r]);
    }
  });
}

// The reverse for the outputs: transpose (columns rounded up to kLanes, kWidth) to n rows.
template <int64_t kWidth, typename Finish>
inline void store_outputs(const float *from, int64_t n, int64_t columns, float *to, int64_t stride,
                          const Finish &finish) {
  Vec block[kLanes];
  for_each_vector(columns, [&](int64_t c, int64_t lanes) {
    const auto finished = finish(c, lanes);
    for (int64_t i = 0; i < n; i += kLanes) {
#pragma GCC unroll 16
      for (int r = 0; r < kLanes; ++r) block[r] = load(from + (c + r) * kWidth + i);
      transpose(block);
      const int64_t count = std::min<int64_t>(kLanes, n - i);
      float *const row = to + i * stride + c;
      if (count == kLanes && lanes == kLanes) {
#pragma GCC unroll 16
        for (int r = 0; r < kLanes; ++r) store(row + r * stride, finished(block[r]));
      } else {
        for (int64_t r = 0; r < count; ++r) store_lanes(row + r * stride, finished(block[r]), lanes);
      }
    }
  });
}

}  // namespace msg_ms
