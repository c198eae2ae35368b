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

constexpr int64_t kAllSteps = int64_t{1} << 62;

// What is asked of the memory while tiles are computed: `lines` of 16 numbers from `from` for every `steps` steps.
struct Ahead {
  const float *from = nullptr;
  int64_t lines = 0, steps = kAllSteps;

  void fetch() {
    for (int64_t i = 0; i < lines; ++i, from += 16) __builtin_prefetch(from, 0, 2);
  }
};

struct NothingAhead {
  static constexpr int64_t steps = kAllSteps;

  void fetch() {}
};

// put(total), where total[r][v] is the sum over k of a[r * a_row + k * a_step] and the vector b[k * b_row + v * kLanes].
template <int kRows, int kVectors, typename Next, typename Put>
inline void tile(int64_t depth, const float *a, int64_t a_row, int64_t a_step, const float *b, int64_t b_row, Next &ahead,
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
template <int kVectors, typename Next, typename Put>
inline void tiles(int64_t rows, int64_t depth, const float *a, int64_t a_row, int64_t a_step, const float *b, int64_t b_row,
                  Next ahead, const Put &put) {
  constexpr int kRows = tile_rows(kVectors);
  int64_t i = 0, fewer = (kRows - rows % kRows) % kRows;  // tiles of one row less leave none over, where rows are many
  if (fewer * (kRows - 1) > rows) fewer = 0;
  const auto some = [&](auto count, int64_t end) MSG_MS_INLINE {
    for (; i + count <= end; i += count) {
      tile<count, kVectors>(depth, a + i * a_row, a_row, a_step, b, b_row, ahead,
                            [&](const auto &total) MSG_MS_INLINE { put(i, total); });
    }
  };
  some(std::integral_constant<int, kRows>(), rows - fewer * (kRows - 1));
  some(std::integral_constant<int, kRows - 1>(), fewer > 0 ? rows : i);
  some(std::integral_constant<int, 4>(), rows);
  some(std::integral_constant<int, 2>(), rows);
  some(std::integral_constant<int, 1>(), rows);
}

template <int kRows, int kVectors>
constexpr int64_t rows_of(const Vec (&)[kRows][kVectors]) {
  return kRows;
}

// Where tiles go: c = was + sign * tile, for `columns` of the tile's. The rows of `was` or of c may be one and the same.
struct Target {
  const float *was;
  int64_t was_row;
  float *c;
  int64_t c_row, columns;
  float sign = 1.0f;

  Target from(int64_t row) const { return {was + row * was_row, was_row, c + row * c_row, c_row, columns, sign}; }
};

// With fewer columns than the tile has; it comes from the memory, so that other tiles needn't.
__attribute__((noinline)) inline void put_part(bool add, const float *tile, int64_t rows, int64_t row, const Target &to) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t j = 0; j < to.columns; ++j) {
      const float put = tile[r * row + j];
      to.c[r * to.c_row + j] = add ? to.was[r * to.was_row + j] + to.sign * put : put;
    }
  }
}

// c becomes the sum, or the tile as it is.
template <bool add, int kRows, int kVectors>
MSG_MS_INLINE inline void put_tile(const Vec (&total)[kRows][kVectors], const Target &to) {
  if (to.columns < kVectors * kLanes) {
    Vec copy[kRows][kVectors];
    std::memcpy(copy, total, sizeof(copy));
    return put_part(add, reinterpret_cast<const float *>(copy), kRows, kVectors * kLanes, to);
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      const Vec put = total[r][v];
      store(to.c + r * to.c_row + v * kLanes, add ? load(to.was + r * to.was_row + v * kLanes) + to.sign * put : put);
    }
  }
}

}  // namespace msg_ms
