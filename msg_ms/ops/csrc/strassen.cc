// Strassen's product (Gaussian elimination is not optimal, 1969): seven products of quarters in place of eight.
//
// The right side's sums are taken when it is laid out, the left's as they are needed, and a product is added to the
// result's quarters straight from the registers. Rows are halved by turns, row 2r beside row 2r + 1, so that only
// neighbours share a rounding error, an infinity or a NaN.

#include "product_parts.h"

namespace msg_ms {
namespace {

constexpr int64_t kDepth = 384;  // most steps between two visits to a tile
constexpr int64_t kPairs = 128;  // of rows, whose sums are kept at hand

// A quarter of a matrix: which half of its rows, and of its columns.
struct Quarter {
  int row, column;
};

// one + sign * other; without the other where the sign is 0.
struct Sum {
  Quarter one, other;
  int sign;
};

// Two sums to be multiplied, and the quarters of the result to which that is added: to the other times sign.
struct Term {
  Sum left, right, to;
};

constexpr int kTerms = 7;
constexpr Quarter k11{0, 0}, k12{0, 1}, k21{1, 0}, k22{1, 1};
constexpr Term kTerm[kTerms] = {
    {{k11, k22, 1}, {k11, k22, 1}, {k11, k22, 1}},
    {{k21, k22, 1}, {k11, k11, 0}, {k21, k22, -1}},
    {{k11, k11, 0}, {k12, k22, -1}, {k12, k22, 1}},
    {{k22, k22, 0}, {k21, k11, -1}, {k21, k11, 1}},
    {{k11, k12, 1}, {k22, k22, 0}, {k12, k11, -1}},
    {{k21, k11, -1}, {k11, k12, 1}, {k22, k22, 0}},
    {{k12, k22, -1}, {k21, k22, 1}, {k11, k11, 0}},
};

// The left sides of the products: quarters of a as they are, or sums of them.
class Left {
 public:
  Left(int64_t pairs, int64_t depth) : sums_(5 * pairs * depth) {}

  // Of `pairs` of rows from a, whose halves are `inner` apart, `depth` steps.
  void take(const float *a, int64_t a_row, int64_t inner, int64_t pairs, int64_t depth) {
    float *sum = sums_;
    for (int t = 0; t < kTerms; ++t) {
      const Sum &of = kTerm[t].left;
      const float *one = a + of.one.row * a_row + of.one.column * inner;
      const float *other = a + of.other.row * a_row + of.other.column * inner, sign = static_cast<float>(of.sign);
      rows[t] = of.sign == 0 ? one : sum;
      row[t] = of.sign == 0 ? 2 * a_row : depth;
      for (int64_t r = 0; of.sign != 0 && r < pairs; ++r, sum += depth, one += 2 * a_row, other += 2 * a_row) {
#pragma omp simd
        for (int64_t k = 0; k < depth; ++k) sum[k] = one[k] + sign * other[k];
      }
    }
  }

  const float *rows[kTerms];
  int64_t row[kTerms];

 private:
  const Memory sums_;
};

// What one thread does: rows [i, end) of c and columns [j, right) of both its halves.
template <int kVectors>
void strassen_part(int part, int64_t i, int64_t end, int64_t j, int64_t right, int64_t depth, Matrix a, const float *b,
                   float *c, int64_t columns, const Finish &finish) {
  constexpr int64_t kWidth = kVectors * kLanes;
  const int64_t half = columns / 2, inner = depth / 2;
  const int64_t steps = even_share(inner, kDepth), most = 2 * even_share((end - i) / 2, kPairs);
  Left left(most / 2, steps);
  const Buffer zeros(kWidth);
  const Memory spare(kWidth);
  for (; i < end; i += most) {
    const int64_t pairs = std::min(most, end - i) / 2;
    for (int64_t k = 0; k < inner; k += steps) {
      const int64_t now = std::min(steps, inner - k);
      const bool last = k + now == inner;
      left.take(a.data + i * a.row + k, a.row, inner, pairs, now);
      for (int64_t p = j; p < right; p += kWidth) {
        const int64_t width = std::min(kWidth, right - p);
        bool begun[2][2] = {{k > 0, k > 0}, {k > 0, k > 0}};
        const auto target = [&](Quarter quarter, int sign) {
          if (sign == 0) return Target{zeros, 0, spare, 0, width, 0.0f};
          float *to = c + (i + quarter.row) * columns + quarter.column * half + p;
          const bool again = std::exchange(begun[quarter.row][quarter.column], true);
          return Target{again ? to : zeros, again ? 2 * columns : 0, to, 2 * columns, width, static_cast<float>(sign)};
        };
        for (int t = 0; t < kTerms; ++t) {
          const Sum &to = kTerm[t].to;
          const Target one = target(to.one, 1), other = target(to.other, to.sign);
          const float *const right_part = b + (p * kTerms + t * kWidth) * inner + k * kWidth;
          const Ahead ahead = following(right_part + inner * kWidth, now * kWidth, pairs, tile_rows(kVectors), now);
          tiles<kVectors>(pairs, now, left.rows[t], left.row[t], 1, right_part, kWidth, ahead,
                          [&](int64_t row, const auto &total) MSG_MS_INLINE {
                            put_tile<true>(total, one.from(row));
                            put_tile<true>(total, other.from(row));
                            if (!finish || !last || t + 1 < kTerms) return;
                            finish(part, i + 2 * row, 2 * rows_of(total), p, width);
                            finish(part, i + 2 * row, 2 * rows_of(total), half + p, width);
                          });
        }
      }
    }
  }
}

}  // namespace

void lay_out_strassen(int64_t depth, int64_t columns, Matrix b, float *to) {
  const int64_t half = columns / 2, inner = depth / 2;
  with_tile(half, [&](auto vectors) {
    constexpr int64_t kWidth = vectors * kLanes;
    parallel_for((half + kWidth - 1) / kWidth, 1, [&](int, int64_t begin, int64_t end) {
      const Memory space(kWidth * inner);
      float *const sums = space;
      for (int64_t p = begin * kWidth; p < end * kWidth; p += kWidth) {
        const int64_t width = std::min(kWidth, half - p);
        for (int t = 0; t < kTerms; ++t) {
          const Sum &of = kTerm[t].right;
          for (int64_t j = 0; j < width; ++j) {
            const auto entry = [&](Quarter quarter, int64_t k) {
              return b.data[(quarter.row * inner + k) * b.row + (quarter.column * half + p + j) * b.column];
            };
            for (int64_t k = 0; k < inner; ++k) {
              sums[j * inner + k] = entry(of.one, k) + (of.sign == 0 ? 0.0f : of.sign * entry(of.other, k));
            }
          }
          lay_out_right<vectors>(transposed(sums, inner), 0, inner, 0, width, to + (p * kTerms + t * kWidth) * inner);
        }
      }
    });
  });
}

void strassen_product(int64_t rows, int64_t columns, int64_t depth, Matrix a, const float *b, float *c,
                      const Finish &finish) {
  const int64_t half = columns / 2;
  with_tile(half, [&](auto vectors) {
    in_parts(parts_worth(rows, columns, depth), rows, 2 * tile_rows(vectors), half, vectors * kLanes,
             [&](int part, int64_t i, int64_t end, int64_t j, int64_t right) {
               strassen_part<vectors>(part, i, end, j, right, depth, a, b, c, columns, finish);
             });
  });
}

}  // namespace msg_ms
