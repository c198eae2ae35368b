// The part of a matrix product that stays in registers, for large products (product.cc) and small ones (gemm.h).
#pragma once

#include <algorithm>
#include <type_traits>

#include "vector.h"

namespace msg_ms {

// As many rows as fit beside the vectors of the right side and one number of the left.
#if defined(__AVX512F__) || defined(__aarch64__)
#define MSG_MS_MANY_REGISTERS  // 32
constexpr int kMostVectors = 4;
constexpr int tile_rows(int vectors) { return vectors == 4 ? 6 : vectors == 3 ? 8 : 12; }
#else
constexpr int kMostVectors = 2;
constexpr int tile_rows(int vectors) { return vectors == 2 ? 6 : 8; }
#endif

// What receives a tile has to be inlined, or the tile would pass through the memory.
#define MSG_MS_INLINE __attribute__((always_inline))

// What is asked of the memory while tiles are computed: `lines` of 16 numbers from `from` for every `steps` steps.
struct Ahead {
  const float *from;
  int64_t lines, steps;

  void fetch() {
    for (int64_t i = 0; i < lines; ++i, from += 16) __builtin_prefetch(from, 0, 2);
  }
};

struct NothingAhead {
  static constexpr int64_t steps = int64_t{1} << 62;

  void fetch() {}
};

// put(total), where total[r][v] is the sum over k of a[r * a_row + k * a_step] and the vector b[k * b_row + v * kLanes].
template <int kRows, int kVectors, typename Ahead, typename Put>
inline void tile(int64_t depth, const float *a, int64_t a_row, int64_t a_step, const float *b, int64_t b_row, Ahead ahead,
                 const Put &put) {
  Vec total[kRows][kVectors] = {};
  for (int64_t k = 0; k < depth;) {
    const int64_t end = std::min(k + ahead.steps, depth);
    ahead.fetch();
    for (; k < end; ++k) {
      Vec right[kVectors];
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) right[v] = load(b + k * b_row + v * kLanes);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const float left = a[r * a_row + k * a_step];
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) total[r][v] += left * right[v];
      }
    }
  }
  put(total);
}

// The same for any number of rows, with put(i, total) for those from i.
template <int kVectors, typename Ahead, typename Put>
inline void tiles(int64_t rows, int64_t depth, const float *a, int64_t a_row, int64_t a_step, const float *b, int64_t b_row,
                  Ahead ahead, const Put &put) {
  int64_t i = 0;
  const auto some = [&](auto count) MSG_MS_INLINE {
    for (; i + count <= rows; i += count) {
      tile<count, kVectors>(depth, a + i * a_row, a_row, a_step, b, b_row, ahead,
                                     [&](const auto &total) MSG_MS_INLINE { put(i, total); });
    }
  };
  some(std::integral_constant<int, tile_rows(kVectors)>());
  some(std::integral_constant<int, 4>());
  some(std::integral_constant<int, 2>());
  some(std::integral_constant<int, 1>());
}

enum class Put { kSet, kAdd, kSubtract };

// Rows of c, of `columns` that are at most the tile's, become the tile, or gain or lose it.
template <Put how, int kRows, int kVectors>
MSG_MS_INLINE inline void put_tile(const Vec (&total)[kRows][kVectors], float *c, int64_t c_row, int64_t columns) {
  const auto put = [](Vec was, Vec sum) MSG_MS_INLINE { return how == Put::kAdd ? was + sum : was - sum; };
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      float *to = c + r * c_row + v * kLanes;
      const int64_t n = columns - v * kLanes;
      if (n >= kLanes) {
        store(to, how == Put::kSet ? total[r][v] : put(load(to), total[r][v]));
      } else if (n > 0) {
        store_part(to, how == Put::kSet ? total[r][v] : put(load_part(to, n), total[r][v]), n);
      }
    }
  }
}

}  // namespace msg_ms
