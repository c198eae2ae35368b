// Parts that gemm.cc and strassen.cc share: the packing of panels of b, and the split of a product among threads.
#pragma once

#include <algorithm>
#include <type_traits>
#include <utility>

#include "base/parallel.h"
#include "gemm/matrix.h"
#include "gemm/micro_kernel.h"

namespace msg_ms {

// Return the widest tile for a number of columns, or a narrower one if it pads fewer columns.
inline int tile_vectors(int64_t columns) {
  const auto padded = [&](int vectors) { return round_up(columns, vectors * kLanes); };
  int vectors = kMaxTileVectors;
  for (int v = kMaxTileVectors - 1; v > 0; --v) vectors = padded(v) < padded(vectors) ? v : vectors;
  return vectors;
}

// Call body with tile_vectors(columns) as a compile-time constant.
template <typename Body>
void with_tile_vectors(int64_t columns, const Body &body) {
  switch (tile_vectors(columns)) {
#if MSG_MS_VECTOR_REGISTERS == 32
    case 4: return body(std::integral_constant<int, 4>());
    case 3: return body(std::integral_constant<int, 3>());
#endif
    case 2: return body(std::integral_constant<int, 2>());
    default: return body(std::integral_constant<int, 1>());
  }
}

// Pack rows [k, k + depth) and columns [j, j + columns) of b into one panel (depth, kVectors * kLanes), padded with
// zeros.
template <int kVectors>
inline void pack_panel(Matrix b, int64_t k, int64_t depth, int64_t j, int64_t columns, float *to) {
  constexpr int64_t kWidth = kVectors * kLanes;
  if (b.column_stride == 1) {
    const float *from = b.data + k * b.row_stride + j;
    for (int64_t i = 0; i < depth; ++i, from += b.row_stride, to += kWidth) {
      if (columns == kWidth) {
        std::memcpy(to, from, kWidth * sizeof(float));
        continue;
      }
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        const int64_t n = columns - v * kLanes;
        const float *part = from + v * kLanes;
        store(to + v * kLanes, n >= kLanes ? load(part) : n > 0 ? load_partial(part, n) : Vec{});
      }
    }
    return;
  }
  for (int v = 0; v < kVectors; ++v) {
    const int64_t n = std::min<int64_t>(kLanes, columns - v * kLanes);
    int64_t i = 0;
    for (; n == kLanes && i + kLanes <= depth; i += kLanes) {
      const float *from = b.data + (j + v * kLanes) * b.column_stride + k + i;
      Vec block[kLanes];
#pragma GCC unroll 16
      for (int r = 0; r < kLanes; ++r) block[r] = load(from + r * b.column_stride);
      transpose(block);
#pragma GCC unroll 16
      for (int r = 0; r < kLanes; ++r) store(to + (i + r) * kWidth + v * kLanes, block[r]);
    }
    for (; i < depth; ++i) {
      float *row = to + i * kWidth + v * kLanes;
      for (int64_t r = 0; r < kLanes; ++r) {
        row[r] = r < n ? b.data[(j + v * kLanes + r) * b.column_stride + k + i] : 0.0f;
      }
    }
  }
}

// Return the block size that splits n into the fewest equal blocks of at most `max_size`.
inline int64_t even_block(int64_t n, int64_t max_size) {
  const int64_t blocks = std::max<int64_t>(1, (n + max_size - 1) / max_size);
  return (n + blocks - 1) / blocks;
}

// Return how many threads a product is worth; 1 inside parallel_for_serial.
inline int64_t useful_threads(int64_t rows, int64_t columns, int64_t depth) {
  constexpr int64_t kMinMultiplications = 1 << 17;  // per thread
  return serial_thread() >= 0 ? 1 : std::clamp<int64_t>(rows * columns * depth / kMinMultiplications, 1, num_threads());
}

// Return the tiles that each thread computes if `threads` threads split the rows, and if they split the columns. A
// panel counts as one more tile: packing it takes about as long, and threads that split the rows pack all panels each.
inline std::pair<int64_t, int64_t> tiles_per_thread(int64_t row_tiles, int64_t column_tiles, int64_t threads) {
  const auto share = [&](int64_t n) { return (n + threads - 1) / threads; };
  return {(share(row_tiles) + 1) * column_tiles, share(column_tiles) * (row_tiles + 1)};
}

// Split c by rows or by columns, whichever is cheaper, in whole units; call body(thread, i, i_end, j, j_end) on each
// range.
template <typename Body>
void split_among_threads(int64_t threads, int64_t rows, int64_t row_unit, int64_t columns, int64_t column_unit,
                         const Body &body) {
  if (threads == 1) return body(std::max(serial_thread(), 0), int64_t{0}, rows, int64_t{0}, columns);
  const int64_t row_tiles = (rows + row_unit - 1) / row_unit, column_tiles = (columns + column_unit - 1) / column_unit;
  const auto [by_rows, by_columns] = tiles_per_thread(row_tiles, column_tiles, threads);
  const bool split_rows = by_rows <= by_columns;
  run_on_threads(threads, [&](int thread) {
    const auto range = [&](int64_t units, int64_t unit, int64_t n) {
      return std::make_pair(units * thread / threads * unit, std::min(n, units * (thread + 1) / threads * unit));
    };
    if (split_rows) {
      const auto [i, i_end] = range(row_tiles, row_unit, rows);
      body(thread, i, i_end, int64_t{0}, columns);
    } else {
      const auto [j, j_end] = range(column_tiles, column_unit, columns);
      body(thread, int64_t{0}, rows, j, j_end);
    }
  });
}

}  // namespace msg_ms
