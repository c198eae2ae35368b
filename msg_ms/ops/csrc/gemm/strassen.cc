// Strassen's algorithm; see strassen.h.
//
// The combinations of b are computed when it is packed, those of a as they are needed. A product is added to the
// quadrants of c straight from the registers. The halves of a's and c's rows are the even and the odd rows: only
// neighbours share a rounding error, an infinity or a NaN.

#include "gemm/strassen.h"

#include "base/workspace.h"
#include "gemm/gemm_common.h"

namespace msg_ms {
namespace {

constexpr int64_t kMaxDepthBlock = 384;  // between two visits to a tile of c
constexpr int64_t kMaxRowPairs = 128;    // whose combinations stay in the cache

// A quadrant of a matrix: 0 or 1 for the half of its rows and of its columns.
struct Quadrant {
  int row, column;
};

// first + sign * second; a sign of 0 omits the second.
struct Combination {
  Quadrant first, second;
  int sign;
};

// One of the seven products: a combination of a times one of b, added to one or two quadrants of c.
struct Product {
  Combination a, b, c;
};

constexpr int kProducts = 7;
constexpr Quadrant k11{0, 0}, k12{0, 1}, k21{1, 0}, k22{1, 1};
constexpr Product kProduct[kProducts] = {
  {{k11, k22, 1}, {k11, k22, 1}, {k11, k22, 1}},  {{k21, k22, 1}, {k11, k11, 0}, {k21, k22, -1}},
  {{k11, k11, 0}, {k12, k22, -1}, {k12, k22, 1}}, {{k22, k22, 0}, {k21, k11, -1}, {k21, k11, 1}},
  {{k11, k12, 1}, {k22, k22, 0}, {k12, k11, -1}}, {{k21, k11, -1}, {k11, k12, 1}, {k22, k22, 0}},
  {{k12, k22, -1}, {k21, k22, 1}, {k11, k11, 0}},
};

// The left-hand sides of the seven products for a block of a: quadrants in place, or their combinations.
class LeftSides {
 public:
  LeftSides(int64_t row_pairs, int64_t depth) : sums_(5 * row_pairs * depth) {}

  // Combine `row_pairs` pairs of rows of a over `depth` columns; the halves of its columns are `half_depth` apart.
  void combine(const float *a, int64_t a_row_stride, int64_t half_depth, int64_t row_pairs, int64_t depth) {
    float *sum = sums_;
    for (int t = 0; t < kProducts; ++t) {
      const Combination &of = kProduct[t].a;
      const float *first = a + of.first.row * a_row_stride + of.first.column * half_depth;
      const float *second = a + of.second.row * a_row_stride + of.second.column * half_depth;
      const float sign = static_cast<float>(of.sign);
      rows[t] = of.sign == 0 ? first : sum;
      row_stride[t] = of.sign == 0 ? 2 * a_row_stride : depth;
      for (int64_t r = 0; of.sign != 0 && r < row_pairs; ++r) {
#pragma omp simd
        for (int64_t k = 0; k < depth; ++k) sum[k] = first[k] + sign * second[k];
        sum += depth, first += 2 * a_row_stride, second += 2 * a_row_stride;
      }
    }
  }

  const float *rows[kProducts];
  int64_t row_stride[kProducts];

 private:
  const Workspace sums_;
};

// Compute rows [i, i_end) of c, and columns [j, j_end) of both its halves, on one thread.
template <int kVectors>
void strassen_on_thread(int thread, int64_t i, int64_t i_end, int64_t j, int64_t j_end, int64_t depth, Matrix a,
                        const float *b, float *c, int64_t columns, const Epilogue &epilogue) {
  constexpr int64_t kWidth = kVectors * kLanes;
  const int64_t half_columns = columns / 2, half_depth = depth / 2;
  const int64_t max_depth_block = even_block(half_depth, kMaxDepthBlock);
  const int64_t row_block = 2 * even_block((i_end - i) / 2, kMaxRowPairs);
  LeftSides left(row_block / 2, max_depth_block);
  const ZeroedWorkspace zeros(kWidth);
  const Workspace discarded(kWidth);
  for (; i < i_end; i += row_block) {
    const int64_t row_pairs = std::min(row_block, i_end - i) / 2;
    for (int64_t k = 0; k < half_depth; k += max_depth_block) {
      const int64_t depth_block = std::min(max_depth_block, half_depth - k);
      const bool last_block = k + depth_block == half_depth;
      left.combine(a.data + i * a.row_stride + k, a.row_stride, half_depth, row_pairs, depth_block);
      for (int64_t p = j; p < j_end; p += kWidth) {
        const int64_t width = std::min(kWidth, j_end - p);
        bool initialized[2][2] = {{k > 0, k > 0}, {k > 0, k > 0}};
        const auto target_of = [&](Quadrant quadrant, int sign) {
          if (sign == 0) return TileTarget{zeros, 0, discarded, 0, width, 0.0f};
          float *to = c + (i + quadrant.row) * columns + quadrant.column * half_columns + p;
          const bool adds = std::exchange(initialized[quadrant.row][quadrant.column], true);
          return TileTarget{adds ? to : zeros,       adds ? 2 * columns : 0, to, 2 * columns, width,
                            static_cast<float>(sign)};
        };
        for (int t = 0; t < kProducts; ++t) {
          const Combination &of = kProduct[t].c;
          const TileTarget first = target_of(of.first, 1), second = target_of(of.second, of.sign);
          const float *const b_panel = b + (p * kProducts + t * kWidth) * half_depth + k * kWidth;
          const PanelPrefetch prefetch(b_panel + half_depth * kWidth, kWidth,
                                       (row_pairs + tile_rows(kVectors) - 1) / tile_rows(kVectors));
          multiply_panel<kVectors>(row_pairs, depth_block, left.rows[t], left.row_stride[t], 1, b_panel, kWidth,
                                   prefetch, [&](int64_t row, const auto &tile) MSG_MS_INLINE {
                                     store_tile<true>(tile, first.from_row(row));
                                     store_tile<true>(tile, second.from_row(row));
                                     if (!epilogue || !last_block || t + 1 < kProducts) return;
                                     epilogue(thread, i + 2 * row, 2 * row_count(tile), p, width);
                                     epilogue(thread, i + 2 * row, 2 * row_count(tile), half_columns + p, width);
                                   });
        }
      }
    }
  }
}

}  // namespace

void pack_strassen(int64_t depth, int64_t columns, Matrix b, float *to) {
  const int64_t half_columns = columns / 2, half_depth = depth / 2;
  with_tile_vectors(half_columns, [&](auto vectors) {
    constexpr int64_t kWidth = vectors * kLanes;
    parallel_for((half_columns + kWidth - 1) / kWidth, 1, [&](int, int64_t begin, int64_t end) {
      const Workspace workspace(kWidth * half_depth);
      float *const sums = workspace;
      for (int64_t p = begin * kWidth; p < end * kWidth; p += kWidth) {
        const int64_t width = std::min(kWidth, half_columns - p);
        for (int t = 0; t < kProducts; ++t) {
          const Combination &of = kProduct[t].b;
          for (int64_t j = 0; j < width; ++j) {
            const auto entry = [&](Quadrant quadrant, int64_t k) {
              return b.data[(quadrant.row * half_depth + k) * b.row_stride +
                            (quadrant.column * half_columns + p + j) * b.column_stride];
            };
            for (int64_t k = 0; k < half_depth; ++k) {
              sums[j * half_depth + k] = entry(of.first, k) + (of.sign == 0 ? 0.0f : of.sign * entry(of.second, k));
            }
          }
          float *panel = to + (p * kProducts + t * kWidth) * half_depth;
          pack_panel<vectors>(transposed(sums, half_depth), 0, half_depth, 0, width, panel);
        }
      }
    });
  });
}

void strassen_gemm(int64_t rows, int64_t columns, int64_t depth, Matrix a, const float *b, float *c,
                   const Epilogue &epilogue) {
  const int64_t half_columns = columns / 2;
  with_tile_vectors(half_columns, [&](auto vectors) {
    split_among_threads(useful_threads(rows, columns, depth), rows, 2 * tile_rows(vectors), half_columns,
                        vectors * kLanes, [&](int thread, int64_t i, int64_t i_end, int64_t j, int64_t j_end) {
                          strassen_on_thread<vectors>(thread, i, i_end, j, j_end, depth, a, b, c, columns, epilogue);
                        });
  });
}

}  // namespace msg_ms
