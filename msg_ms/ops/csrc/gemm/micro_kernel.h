// The GEMM micro-kernel: a tile of the product held in vector registers, for gemm.cc, strassen.cc and small_gemm.h.
//
// Terms follow BLIS (Van Zee and van de Geijn, "BLIS: a framework for rapidly instantiating BLAS functionality", 2015).
// A panel is the part of b as wide as one tile. Guarantee: every entry of c is summed in the order of k.
#pragma once

#include <algorithm>
#include <type_traits>

#include "base/vector.h"

namespace msg_ms {

// Tile shapes. The accumulators leave room for one row of b and one broadcast entry of a.
#if defined(__AVX512F__) || defined(__aarch64__)
#define MSG_MS_VECTOR_REGISTERS 32
constexpr int kMaxTileVectors = 4;
constexpr int tile_rows(int vectors) { return vectors == 4 ? 6 : vectors == 3 ? 8 : 12; }
#else
#define MSG_MS_VECTOR_REGISTERS 16
constexpr int kMaxTileVectors = 2;
constexpr int tile_rows(int vectors) { return vectors == 2 ? 6 : 8; }
#endif

// Prefetch of the panel that is needed next into the second-level cache, evenly over the tiles that use the current
// one: at each step of the loop over k the line of `next`, which moves on by `step` floats, a line or less.
struct PanelPrefetch {
  const float *next;
  int64_t step;

  // The panel at `next` is as wide and as deep as the current one, which is used by `tiles` tiles.
  PanelPrefetch(const float *panel, int64_t width, int64_t tiles)
      : next(panel), step(std::min<int64_t>(16, (width + tiles - 1) / tiles)) {}

  void run() {
    __builtin_prefetch(next, 0, 2);
    next += step;
  }
};

struct NoPrefetch {
  void run() {}
};

// The arithmetic of the micro-kernel: one step of the loop over k. micro_kernel_bfloat16.h has another.
struct SinglePrecision {
  static MSG_MS_INLINE inline void multiply_add(Vec &tile, float a, Vec b) { tile += a * b; }
};

// Load the next row's entry of a after the multiplications of this row: GCC for ARM loads the entries of all rows first
// and has too few registers then, so that parts of the tile go through memory at each step.
MSG_MS_INLINE inline const float *keep_order(const float *a, [[maybe_unused]] Vec sum) {
#if defined(__aarch64__)
  asm volatile("" : "+r"(a) : "w"(sum));
#endif
  return a;
}

// Add to a tile: to tile[r][v] the sum over 0 <= k < depth (at least 1) of a[r * a_row_stride + k * a_column_stride]
// times the vector at b[k * b_row_stride + v * kLanes].
template <typename Arithmetic, int kRows, int kVectors, typename Prefetch>
MSG_MS_INLINE inline void micro_kernel(Vec (&tile)[kRows][kVectors], int64_t depth, const float *a,
                                       int64_t a_row_stride, int64_t a_column_stride, const float *b,
                                       int64_t b_row_stride, Prefetch &prefetch) {
  Prefetch fetched = prefetch;  // in registers
  int64_t k = 0;
  do {  // not "for", with which GCC spills a tile that does not start from zero
    Vec b_row[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) b_row[v] = load(b + k * b_row_stride + v * kLanes);
    fetched.run();
    const float *a_column = a + k * a_column_stride;
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const float a_entry = a_column[r * a_row_stride];
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) Arithmetic::multiply_add(tile[r][v], a_entry, b_row[v]);
      a_column = keep_order(a_column, tile[r][0]);
    }
  } while (++k < depth);
  prefetch = fetched;
}

// Call body(i, n) for the tiles of a panel from top to bottom, n rows from row i; n is a compile-time constant.
template <int kVectors, typename Body>
MSG_MS_INLINE inline void for_each_tile(int64_t rows, const Body &body) {
  constexpr int kRows = tile_rows(kVectors);
  // Some tiles of kRows - 1 rows avoid a remainder, if there are enough rows.
  int64_t i = 0, shorter_tiles = (kRows - rows % kRows) % kRows;
  if (shorter_tiles * (kRows - 1) > rows) shorter_tiles = 0;
  const auto run_tiles = [&](auto count, int64_t end) MSG_MS_INLINE {
    for (; i + count <= end; i += count) body(i, count);
  };
  run_tiles(std::integral_constant<int, kRows>(), rows - shorter_tiles * (kRows - 1));
  run_tiles(std::integral_constant<int, kRows - 1>(), shorter_tiles > 0 ? rows : i);
  run_tiles(std::integral_constant<int, 4>(), rows);
  run_tiles(std::integral_constant<int, 2>(), rows);
  run_tiles(std::integral_constant<int, 1>(), rows);
}

// The values from which the sums of a tile start: zero, or a row for all rows of the tile.
struct ZeroStart {
  Vec operator[](int) const { return Vec{}; }
};

// Multiply one tile's rows of a by a panel of b and call store(tile).
template <int kRows, int kVectors, typename Arithmetic, typename Start, typename Prefetch, typename Store>
inline void multiply_tile(const Start &start, int64_t depth, const float *a, int64_t a_row_stride,
                          int64_t a_column_stride, const float *b, int64_t b_row_stride, Prefetch &prefetch,
                          const Store &store) {
  Vec tile[kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) tile[r][v] = start[v];
  }
  micro_kernel<Arithmetic>(tile, depth, a, a_row_stride, a_column_stride, b, b_row_stride, prefetch);
  store(tile);
}

// Multiply any number of rows of a by one panel of b: call store(i, tile) for the tile whose first row is i.
template <int kVectors, typename Arithmetic = SinglePrecision, typename Prefetch, typename Store,
          typename Start = ZeroStart>
inline void multiply_panel(int64_t rows, int64_t depth, const float *a, int64_t a_row_stride, int64_t a_column_stride,
                           const float *b, int64_t b_row_stride, Prefetch prefetch, const Store &store,
                           const Start &start = Start()) {
  for_each_tile<kVectors>(rows, [&](int64_t i, auto count) MSG_MS_INLINE {
    multiply_tile<count, kVectors, Arithmetic>(start, depth, a + i * a_row_stride, a_row_stride, a_column_stride, b,
                                               b_row_stride, prefetch,
                                               [&](auto &tile) MSG_MS_INLINE { store(i, tile); });
  });
}

template <int kRows, int kVectors>
constexpr int64_t row_count(const Vec (&)[kRows][kVectors]) {
  return kRows;
}

// The destination of a tile: its first `columns` columns are stored as c = addend + sign * tile. The addend may be
// c itself. A row stride of 0 repeats one row.
struct TileTarget {
  const float *addend;
  int64_t addend_row_stride;
  float *c;
  int64_t c_row_stride, columns;
  float sign = 1.0f;

  TileTarget from_row(int64_t row) const {
    return {addend + row * addend_row_stride, addend_row_stride, c + row * c_row_stride, c_row_stride, columns, sign};
  }
};

// Store a tile at the right edge of c from a copy in memory. Not inlined, so that full tiles stay in registers.
__attribute__((noinline)) inline void store_partial_tile(bool accumulate, const float *tile, int64_t rows,
                                                         int64_t tile_row_stride, const TileTarget &target) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t j = 0; j < target.columns; ++j) {
      const float entry = tile[r * tile_row_stride + j];
      target.c[r * target.c_row_stride + j] =
        accumulate ? target.addend[r * target.addend_row_stride + j] + target.sign * entry : entry;
    }
  }
}

// Store c = addend + sign * tile if `accumulate`, else c = tile.
template <bool accumulate, int kRows, int kVectors>
MSG_MS_INLINE inline void store_tile(const Vec (&tile)[kRows][kVectors], const TileTarget &target) {
  if (target.columns < kVectors * kLanes) {
    Vec copy[kRows][kVectors];
    std::memcpy(copy, tile, sizeof(copy));
    return store_partial_tile(accumulate, reinterpret_cast<const float *>(copy), kRows, kVectors * kLanes, target);
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      const Vec entries = tile[r][v];
      const float *addend = target.addend + r * target.addend_row_stride + v * kLanes;
      store(target.c + r * target.c_row_stride + v * kLanes,
            accumulate ? load(addend) + target.sign * entries : entries);
    }
  }
}

}  // namespace msg_ms
