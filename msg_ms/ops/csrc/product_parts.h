// What the products of product.cc and strassen.cc have in common: their right side, and how threads share them.
#pragma once

#include <algorithm>
#include <type_traits>
#include <utility>

#include "product.h"
#include "tile.h"

namespace msg_ms {

// The widest tile for so many columns, unless a narrower one leaves fewer of them empty.
inline int tile_vectors(int64_t columns) {
  const auto padded = [&](int vectors) { return round_up(columns, vectors * kLanes); };
  int vectors = kMostVectors;
  for (int v = kMostVectors - 1; v > 0; --v) vectors = padded(v) < padded(vectors) ? v : vectors;
  return vectors;
}

// Calls use with the constant that tile_vectors gives.
template <typename Use>
void with_tile(int64_t columns, const Use &use) {
  switch (tile_vectors(columns)) {
#ifdef MSG_MS_MANY_REGISTERS
    case 4: return use(std::integral_constant<int, 4>());
    case 3: return use(std::integral_constant<int, 3>());
#endif
    case 2: return use(std::integral_constant<int, 2>());
    default: return use(std::integral_constant<int, 1>());
  }
}

// Rows [k, k + depth) of `columns` columns of b from j, as (depth, kVectors * kLanes), zeros where there are none.
template <int kVectors>
inline void lay_out_right(Matrix b, int64_t k, int64_t depth, int64_t j, int64_t columns, float *to) {
  constexpr int64_t kWidth = kVectors * kLanes;
  if (b.column == 1) {
    const float *from = b.data + k * b.row + j;
    for (int64_t i = 0; i < depth; ++i, from += b.row, to += kWidth) {
      if (columns == kWidth) {
        std::memcpy(to, from, kWidth * sizeof(float));
        continue;
      }
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        const int64_t n = columns - v * kLanes;
        store(to + v * kLanes, n >= kLanes ? load(from + v * kLanes) : n > 0 ? load_part(from + v * kLanes, n) : Vec{});
      }
    }
    return;
  }
  for (int v = 0; v < kVectors; ++v) {
    const int64_t n = std::min<int64_t>(kLanes, columns - v * kLanes);
    int64_t i = 0;
    for (; n == kLanes && i + kLanes <= depth; i += kLanes) {
      const float *from = b.data + (j + v * kLanes) * b.column + k + i;
      Vec block[kLanes];
#pragma GCC unroll 16
      for (int r = 0; r < kLanes; ++r) block[r] = load(from + r * b.column);
      transpose(block);
#pragma GCC unroll 16
      for (int r = 0; r < kLanes; ++r) store(to + (i + r) * kWidth + v * kLanes, block[r]);
    }
    for (; i < depth; ++i) {
      float *at = to + i * kWidth + v * kLanes;
      for (int64_t r = 0; r < kLanes; ++r) at[r] = r < n ? b.data[(j + v * kLanes + r) * b.column + k + i] : 0.0f;
    }
  }
}

// The length of the fewest equal pieces of at most `most` that n is cut into.
inline int64_t even_share(int64_t n, int64_t most) {
  const int64_t pieces = std::max<int64_t>(1, (n + most - 1) / most);
  return (n + pieces - 1) / pieces;
}

// For few rows what comes next of a laid out side, `n` numbers from `next`, has to be asked for while the tiles of these
// rows are computed: the processor fetches ahead too late.
inline Ahead following(const float *next, int64_t n, int64_t rows, int64_t rows_of_tile, int64_t depth) {
  constexpr int64_t kSteps = 16, kFewRows = 128;
  if (rows >= kFewRows) return {};
  const int64_t turns = (rows + rows_of_tile - 1) / rows_of_tile * ((depth + kSteps - 1) / kSteps);
  return {next, (n / 16 + turns - 1) / turns, kSteps};
}

// What product() does with a right side that lay_out_strassen gave, in seven eighths of the multiplications.
void strassen_product(int64_t rows, int64_t columns, int64_t depth, Matrix a, const float *b, float *c,
                      const Finish &finish);

// How many threads a product is worth; 1 for a thread that works alone.
inline int64_t parts_worth(int64_t rows, int64_t columns, int64_t depth) {
  constexpr int64_t kLeast = 1 << 17;  // multiplications
  return alone() >= 0 ? 1 : std::clamp<int64_t>(rows * columns * depth / kLeast, 1, threads());
}

// What each of `parts` computes of down x across tiles, where they share the rows (each lays out all of the right side,
// which takes about as long as a tile) or the columns.
inline std::pair<int64_t, int64_t> shared_tiles(int64_t down, int64_t across, int64_t parts) {
  const auto part = [&](int64_t n) { return (n + parts - 1) / parts; };
  return {(part(down) + 1) * across, part(across) * (down + 1)};
}

// Calls part(number, i, end, j, right) for ranges of rows or of columns, whole units of them, whichever is cheaper.
template <typename Part>
void in_parts(int64_t parts, int64_t rows, int64_t row_unit, int64_t columns, int64_t column_unit, const Part &part) {
  if (parts == 1) return part(std::max(alone(), 0), int64_t{0}, rows, int64_t{0}, columns);
  const int64_t down = (rows + row_unit - 1) / row_unit, across = (columns + column_unit - 1) / column_unit;
  const auto [by_rows, by_columns] = shared_tiles(down, across, parts);
  const bool share_rows = by_rows <= by_columns;
  run_parts(parts, [&](int number) {
    const auto range = [&](int64_t units, int64_t unit, int64_t n) {
      return std::make_pair(units * number / parts * unit, std::min(n, units * (number + 1) / parts * unit));
    };
    if (share_rows) {
      const auto [i, end] = range(down, row_unit, rows);
      part(number, i, end, int64_t{0}, columns);
    } else {
      const auto [j, right] = range(across, column_unit, columns);
      part(number, int64_t{0}, rows, j, right);
    }
  });
}

}  // namespace msg_ms
