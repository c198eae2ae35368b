// Matrix products, see product.h, and x w^T with its gradients as kernels, see product.py.

#include "product.h"

#include <algorithm>
#include <utility>

#include "tile.h"

namespace msg_ms {
namespace {

constexpr int64_t kDepth = 768;          // most steps between two visits to a tile
constexpr int64_t kFetchSteps = 16;
constexpr int64_t kFewRows = 128;        // for which a weight has to be fetched, so fast are they done
constexpr int64_t kBlock = 1 << 17;      // elements of a that a thread keeps at hand
constexpr int64_t kFar = 1024;           // steps of a so far apart fall into the same few lines of the cache
constexpr int64_t kSecondLevel = 1 << 17;  // elements that the second-level cache holds, beside others
constexpr int64_t kLeastWork = 1 << 17;  // multiplications that are worth a thread

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

// Rows [i, i + rows) and columns [k, k + depth) of a whose columns are contiguous: blocks of kRows rows, step by step.
template <int kRows>
inline void lay_out_left(Matrix a, int64_t i, int64_t rows, int64_t k, int64_t depth, float *to) {
  constexpr int64_t kSteps = 8;                    // whose cache lines serve the next rows as well
  constexpr int kCopied = kRows == 6 ? 8 : kRows;  // in one instruction; what is too much is written over next
  for (int64_t first = 0; first < depth; first += kSteps) {
    const int64_t end = std::min(first + kSteps, depth);
    for (int64_t r = 0; r < rows; r += kRows) {
      const int64_t n = std::min<int64_t>(kRows, rows - r);
      const float *from = a.data + k * a.column + i + r;
      float *at = to + r * depth;
      int64_t s = first;
      if (r + kCopied <= rows) {
        const int64_t most = std::min(end, depth - 1);
        for (; s < most; ++s) std::memcpy(at + s * kRows, from + s * a.column, kCopied * sizeof(float));
      }
      for (; s < end; ++s) std::memcpy(at + s * kRows, from + s * a.column, n * sizeof(float));
    }
  }
}

// What one thread does: rows [i, end) and columns [j, right) of c.
template <int kVectors>
void product_part(int part, int64_t i, int64_t end, int64_t j, int64_t right, int64_t depth, Matrix a, Matrix b,
                  float *c, int64_t c_row, bool add, const Finish &finish) {
  constexpr int kRows = tile_rows(kVectors);
  constexpr int64_t kWidth = kVectors * kLanes;
  const int64_t visits = (depth + kDepth - 1) / kDepth, steps = (depth + visits - 1) / visits;
  const bool turn = a.column >= kFar, far = add && (end - i) * c_row > kSecondLevel;  // where the sums are
  const int64_t most = round_up(std::max<int64_t>(kBlock / steps, kRows), kRows);
  Memory panel(steps * kWidth), block(turn ? round_up(std::min(most, end - i), kRows) * steps : 1);
  float *const packed = block, *const columns = panel;
  for (; i < end; i += most) {
    const int64_t rows = std::min(most, end - i);
    for (int64_t k = 0; k < depth; k += steps) {
      const int64_t now = std::min(steps, depth - k);
      if (turn) lay_out_left<kRows>(a, i, rows, k, now, packed);
      for (int64_t p = j; p < right; p += kWidth) {
        const int64_t width = std::min(kWidth, right - p);
        const float *right_part = b.laid_out + p * depth + k * kWidth;
        if (b.laid_out == nullptr) {
          lay_out_right<kVectors>(b, k, now, p, width, columns);
          right_part = columns;
        }
        // For few rows, what follows in b has to be asked for meanwhile: the processor fetches ahead too late.
        const float *const next = right_part + (p + kWidth < right ? depth : steps) * kWidth;
        const int64_t turns = (now + kFetchSteps - 1) / kFetchSteps;  // of a tile to ask
        const bool fetches = b.laid_out != nullptr && rows < kFewRows;
        const int64_t lines = fetches ? (now * kWidth / 16 * kRows + rows * turns - 1) / (rows * turns) : 0;
        for (int64_t r = 0; r < rows; r += kRows) {
          const int64_t n = std::min<int64_t>(kRows, rows - r);
          float *to = c + (i + r) * c_row + p;
          const float *from = turn ? packed + r * now : a.data + (i + r) * a.row + k * a.column;
          const int64_t a_row = turn ? 1 : a.row, a_step = turn ? kRows : a.column;
          const Ahead ahead{next + r / kRows * turns * lines * 16, lines, fetches ? kFetchSteps : now};
          for (int64_t row = 0; far && row < n; ++row) fetch<true>(to + row * c_row, width);
          const auto run = [&](auto how) {
            tiles<kVectors>(n, now, from, a_row, a_step, right_part, kWidth, ahead,
                            [&](int64_t row, const auto &total) MSG_MS_INLINE {
                              put_tile<how>(total, to + row * c_row, c_row, width);
                            });
          };
          if (k == 0 && !add) {
            run(std::integral_constant<Put, Put::kSet>());
          } else {
            run(std::integral_constant<Put, Put::kAdd>());
          }
          if (finish && k + now == depth) finish(part, i + r, n, p, width);
        }
      }
    }
  }
}

// How threads share a product: its rows (each lays out all of b), its columns, or its depth (and their results are added).
enum class Share { kRows, kColumns, kDepth };

// The cheapest in steps of a tile, of which laying out a panel takes about one and an entry of c to be added a fifth.
inline Share choose_share(int64_t down, int64_t across, int64_t depth, int64_t entries, int64_t parts, bool may_add) {
  const auto part = [&](int64_t n) { return (n + parts - 1) / parts; };
  const int64_t by_rows = (part(down) + 1) * across * depth, by_columns = part(across) * (down + 1) * depth;
  const int64_t by_depth = (down + 1) * across * part(depth) + entries * (parts + 1) / 5 / parts;
  if (may_add && by_depth < std::min(by_rows, by_columns)) return Share::kDepth;
  return by_rows <= by_columns ? Share::kRows : Share::kColumns;
}

template <int kVectors>
void product_of(int64_t rows, int64_t columns, int64_t depth, Matrix a, Matrix b, float *c, bool add,
                const Finish &finish) {
  constexpr int64_t kRows = tile_rows(kVectors), kWidth = kVectors * kLanes;
  const int64_t down = (rows + kRows - 1) / kRows, across = (columns + kWidth - 1) / kWidth;
  const int64_t parts = alone() >= 0 ? 1 : std::clamp<int64_t>(rows * columns * depth / kLeastWork, 1, threads());
  if (parts == 1) return product_part<kVectors>(std::max(alone(), 0), 0, rows, 0, columns, depth, a, b, c, columns, add, finish);
  const Share share = choose_share(down, across, depth, rows * columns, parts, !finish && b.laid_out == nullptr);
  const auto range = [&](int64_t n, int64_t unit, int part) {
    return std::make_pair(n * part / parts * unit, n * (part + 1) / parts * unit);
  };
  if (share == Share::kRows) {
    run_parts(parts, [&](int part) {
      const auto [i, end] = range(down, kRows, part);
      product_part<kVectors>(part, i, std::min(end, rows), 0, columns, depth, a, b, c, columns, add, finish);
    });
  } else if (share == Share::kColumns) {
    run_parts(parts, [&](int part) {
      const auto [j, end] = range(across, kWidth, part);
      product_part<kVectors>(part, 0, rows, j, std::min(end, columns), depth, a, b, c, columns, add, finish);
    });
  } else {
    const int64_t entries = rows * columns;
    Memory sums((parts - 1) * entries);
    float *const others = sums;
    run_parts(parts, [&](int part) {
      const auto [k, end] = range(depth, 1, part);
      float *to = part == 0 ? c : others + (part - 1) * entries;
      const Matrix left{a.data + k * a.column, a.row, a.column}, right{b.data + k * b.row, b.row, b.column};
      product_part<kVectors>(part, 0, rows, 0, columns, end - k, left, right, to, columns, add && part == 0, finish);
    });
    parallel_for(entries, 1 << 14, [&](int, int64_t begin, int64_t end) {
      for (int64_t part = 0; part < parts - 1; ++part) {
        const float *from = others + part * entries;
        for (int64_t e = begin; e < end; ++e) c[e] += from[e];
      }
    });
  }
}

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

}  // namespace

void lay_out(int64_t depth, int64_t columns, Matrix b, float *to) {
  with_tile(columns, [&](auto vectors) {
    constexpr int64_t kWidth = vectors * kLanes;
    parallel_for((columns + kWidth - 1) / kWidth, 1, [&](int, int64_t begin, int64_t end) {
      for (int64_t p = begin * kWidth; p < end * kWidth; p += kWidth) {
        lay_out_right<vectors>(b, 0, depth, p, std::min(kWidth, columns - p), to + p * depth);
      }
    });
  });
}

LaidOut::LaidOut(bool many, int64_t depth, int64_t columns, Matrix b)
    : matrix_(b), data_(many ? round_up(columns, tile_vectors(columns) * kLanes) * depth : 1) {
  if (!many) return;
  lay_out(depth, columns, b, data_);
  matrix_.laid_out = data_;
}

void product(int64_t rows, int64_t columns, int64_t depth, Matrix a, Matrix b, float *c, const Finish &finish, bool add) {
  with_tile(columns, [&](auto vectors) { product_of<vectors>(rows, columns, depth, a, b, c, add, finish); });
}

}  // namespace msg_ms

// x (rows, in), w (out, in) -> (rows, out)
MSG_MS_KERNEL(product) {
  using namespace msg_ms;
  const int64_t rows = shapes[0][0], in = shapes[0][1], out = shapes[1][0];
  product(rows, out, in, matrix(data(params, 0), in), transposed(data(params, 1), in), data(params, 2));
  return 0;
}

// w (out, in) -> what products with w^T take: in times out rounded up to 64
MSG_MS_KERNEL(lay_out_weight) {
  using namespace msg_ms;
  const int64_t out = shapes[0][0], in = shapes[0][1];
  float *to = data(params, 1);
  std::memset(to, 0, size(shapes[1], dims[1]) * sizeof(float));
  lay_out(in, out, transposed(data(params, 0), in), to);
  return 0;
}

// x (rows, in), w as lay_out_weight gives it -> (rows, out)
MSG_MS_KERNEL(product_laid_out) {
  using namespace msg_ms;
  const int64_t rows = shapes[0][0], in = shapes[0][1], out = shapes[2][1];
  product(rows, out, in, matrix(data(params, 0), in), laid_out(data(params, 1)), data(params, 2));
  return 0;
}

// w (out, in), the result's gradient (rows, out) -> gradient of x
MSG_MS_KERNEL(product_grad_rows) {
  using namespace msg_ms;
  const int64_t out = shapes[0][0], in = shapes[0][1], rows = shapes[1][0];
  product(rows, in, out, matrix(data(params, 1), out), matrix(data(params, 0), in), data(params, 2));
  return 0;
}

// x (rows, in), the result's gradient (rows, out) -> gradient of w
MSG_MS_KERNEL(product_grad_weight) {
  using namespace msg_ms;
  const int64_t rows = shapes[0][0], in = shapes[0][1], out = shapes[1][1];
  product(out, in, rows, transposed(data(params, 1), out), matrix(data(params, 0), in), data(params, 2));
  return 0;
}
