// Matrix products, see product.h, and x w^T with its gradients as kernels, see product.py.

#include "product.h"

#include "product_parts.h"

namespace msg_ms {
namespace {

constexpr int64_t kDepth = 768;          // most steps between two visits to a tile
constexpr int64_t kBlock = 1 << 17;      // elements of a that a thread keeps at hand
constexpr int64_t kFar = 1024;           // steps of a so far apart fall into the same few lines of the cache
constexpr int64_t kSecondLevel = 1 << 17;  // elements that the second-level cache holds, beside others

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
  const int64_t steps = even_share(depth, kDepth);
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
        Ahead ahead;
        if (b.laid_out != nullptr) {
          const float *const next = right_part + (p + kWidth < right ? depth : steps) * kWidth;
          ahead = following(next, now * kWidth, rows, kRows, now);
        }
        const int64_t several = turn || far ? kRows : rows;  // at once
        for (int64_t r = 0; r < rows; r += several) {
          const int64_t n = std::min(several, rows - r);
          float *to = c + (i + r) * c_row + p;
          const float *from = turn ? packed + r * now : a.data + (i + r) * a.row + k * a.column;
          const int64_t a_row = turn ? 1 : a.row, a_step = turn ? kRows : a.column;
          for (int64_t row = 0; far && row < n; ++row) fetch<true>(to + row * c_row, width);
          const Target target{to, c_row, to, c_row, width};
          const auto run = [&](auto adds) {
            tiles<kVectors>(n, now, from, a_row, a_step, right_part, kWidth, ahead,
                            [&](int64_t row, const auto &total) MSG_MS_INLINE {
                              put_tile<adds>(total, target.from(row));
                              if (finish && k + now == depth) finish(part, i + r + row, rows_of(total), p, width);
                            });
          };
          k == 0 && !add ? run(std::false_type()) : run(std::true_type());
        }
      }
    }
  }
}

template <int kVectors>
void product_of(int64_t rows, int64_t columns, int64_t depth, Matrix a, Matrix b, float *c, bool add,
                const Finish &finish) {
  constexpr int64_t kRows = tile_rows(kVectors), kWidth = kVectors * kLanes;
  const int64_t down = (rows + kRows - 1) / kRows, across = (columns + kWidth - 1) / kWidth, entries = rows * columns;
  const int64_t parts = parts_worth(rows, columns, depth);
  // Threads may share the depth as well, and their results are added: a fifth of a tile's step for each entry.
  const auto [by_rows, by_columns] = shared_tiles(down, across, parts);
  const int64_t by_depth = (down + 1) * across * ((depth + parts - 1) / parts) + entries * (parts + 1) / 5 / parts;
  if (parts == 1 || finish || b.laid_out != nullptr || by_depth >= std::min(by_rows, by_columns) * depth) {
    return in_parts(parts, rows, kRows, columns, kWidth, [&](int part, int64_t i, int64_t end, int64_t j, int64_t right) {
      product_part<kVectors>(part, i, end, j, right, depth, a, b, c, columns, add, finish);
    });
  }
  const Memory sums((parts - 1) * entries);
  float *const others = sums;
  run_parts(parts, [&](int part) {
    const int64_t k = depth * part / parts, end = depth * (part + 1) / parts;
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

}  // namespace

int64_t panel_width(int64_t columns) { return tile_vectors(columns) * kLanes; }

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
    : matrix_(b), data_(many ? round_up(columns, panel_width(columns)) * depth : 1) {
  if (!many) return;
  lay_out(depth, columns, b, data_);
  matrix_.laid_out = data_;
}

void product(int64_t rows, int64_t columns, int64_t depth, Matrix a, Matrix b, float *c, const Finish &finish, bool add) {
  if (b.strassen) return strassen_product(rows, columns, depth, a, b.laid_out, c, finish);
  with_tile(columns, [&](auto vectors) { product_of<vectors>(rows, columns, depth, a, b, c, add, finish); });
}

namespace {

// A weight's kernel: by one of the two ways to lay out, zeros where it leaves room.
void lay_out_by(void (*way)(int64_t, int64_t, Matrix, float *), void **params, int *dims, int64_t **shapes) {
  const int64_t out = shapes[0][0], in = shapes[0][1];
  std::memset(data(params, 1), 0, size(shapes[1], dims[1]) * sizeof(float));
  way(in, out, transposed(data(params, 0), in), data(params, 1));
}

}  // namespace

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
  msg_ms::lay_out_by(msg_ms::lay_out, params, dims, shapes);
  return 0;
}

// w (out, in), both even -> what Strassen's products with w^T take: 7 / 2 in times out / 2 rounded up to 64
MSG_MS_KERNEL(lay_out_weight_strassen) {
  msg_ms::lay_out_by(msg_ms::lay_out_strassen, params, dims, shapes);
  return 0;
}

// x (rows, in), w as one of these gives it -> (rows, out)
MSG_MS_KERNEL(product_laid_out) {
  using namespace msg_ms;
  const int64_t rows = shapes[0][0], in = shapes[0][1], out = shapes[2][1];
  const Matrix weight = laid_out(data(params, 1), size(shapes[1], dims[1]), in, out);
  if (!weight.takes(rows)) return 1;
  product(rows, out, in, matrix(data(params, 0), in), weight, data(params, 2));
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
