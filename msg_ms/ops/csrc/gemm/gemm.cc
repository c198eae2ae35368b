// GEMM for right-hand sides in plain or packed form; see gemm.h.

#include "gemm/gemm.h"

#include "gemm/gemm_common.h"
#include "gemm/micro_kernel_bfloat16.h"

namespace msg_ms {
namespace {

constexpr int64_t kMaxDepthBlock = 768;         // between two visits to a tile of c
constexpr int64_t kMaxBlockOfA = 1 << 17;       // elements of a that a thread keeps in its cache
constexpr int64_t kConflictStride = 1024;       // columns of a this far apart compete for the same few cache lines
constexpr int64_t kSecondLevelCache = 1 << 17;  // elements that fit beside the other operands

// Pack rows [i, i + rows) and columns [k, k + depth) of a, whose columns are contiguous, into blocks of kRows rows.
template <int kRows>
inline void pack_a(Matrix a, int64_t i, int64_t rows, int64_t k, int64_t depth, float *to) {
  constexpr int64_t kColumns = 8;                  // at a time: their cache lines serve the next rows as well
  constexpr int kCopied = kRows == 6 ? 8 : kRows;  // one instruction copies them; the next copy overwrites the excess
  for (int64_t first = 0; first < depth; first += kColumns) {
    const int64_t end = std::min(first + kColumns, depth);
    for (int64_t r = 0; r < rows; r += kRows) {
      const int64_t n = std::min<int64_t>(kRows, rows - r);
      const float *from = a.data + k * a.column_stride + i + r;
      float *block = to + r * depth;
      int64_t s = first;
      if (r + kCopied <= rows) {
        const int64_t last = std::min(end, depth - 1);
        for (; s < last; ++s) std::memcpy(block + s * kRows, from + s * a.column_stride, kCopied * sizeof(float));
      }
      for (; s < end; ++s) std::memcpy(block + s * kRows, from + s * a.column_stride, n * sizeof(float));
    }
  }
}

// Compute rows [i, i_end) and columns [j, j_end) of c on one thread.
template <typename Arithmetic, int kVectors>
void gemm_on_thread(int thread, int64_t i, int64_t i_end, int64_t j, int64_t j_end, int64_t depth, Matrix a, Matrix b,
                    float *c, int64_t c_row_stride, bool accumulate, const Epilogue &epilogue) {
  constexpr int kRows = tile_rows(kVectors);
  constexpr int64_t kWidth = kVectors * kLanes;
  const int64_t max_depth_block = even_block(depth, kMaxDepthBlock);
  const bool packs_a = a.column_stride >= kConflictStride;
  const bool prefetches_c = accumulate && (i_end - i) * c_row_stride > kSecondLevelCache;
  const int64_t row_block = round_up(std::max<int64_t>(kMaxBlockOfA / max_depth_block, kRows), kRows);
  Workspace panel(max_depth_block * kWidth);
  Workspace block(packs_a ? round_up(std::min(row_block, i_end - i), kRows) * max_depth_block : 1);
  float *const packed_a = block, *const packed_b = panel;
  for (; i < i_end; i += row_block) {
    const int64_t rows = std::min(row_block, i_end - i);
    for (int64_t k = 0; k < depth; k += max_depth_block) {
      const int64_t depth_block = std::min(max_depth_block, depth - k);
      if (packs_a) pack_a<kRows>(a, i, rows, k, depth_block, packed_a);
      for (int64_t p = j; p < j_end; p += kWidth) {
        const int64_t width = std::min(kWidth, j_end - p);
        const float *b_panel = b.packed + p * depth + k * kWidth;
        if (b.packed == nullptr) {
          pack_panel<kVectors>(b, k, depth_block, p, width, packed_b);
          b_panel = packed_b;
        }
        // The next panel at the same depth, or the first one at the next depth, is fetched while this one is used.
        const int64_t distance = b.packed == nullptr ? 0 : (p + kWidth < j_end ? depth : max_depth_block) * kWidth;
        const PanelPrefetch prefetch(b_panel + distance, kWidth, (rows + kRows - 1) / kRows);
        const int64_t rows_at_once = packs_a || prefetches_c ? kRows : rows;
        for (int64_t r = 0; r < rows; r += rows_at_once) {
          const int64_t n = std::min(rows_at_once, rows - r);
          float *to = c + (i + r) * c_row_stride + p;
          const float *from =
            packs_a ? packed_a + r * depth_block : a.data + (i + r) * a.row_stride + k * a.column_stride;
          const int64_t a_row_stride = packs_a ? 1 : a.row_stride, a_column_stride = packs_a ? kRows : a.column_stride;
          for (int64_t row = 0; prefetches_c && row < n; ++row) msg_ms::prefetch<true>(to + row * c_row_stride, width);
          const TileTarget target{to, c_row_stride, to, c_row_stride, width};
          const auto run = [&](auto adds) {
            multiply_panel<kVectors, Arithmetic>(n, depth_block, from, a_row_stride, a_column_stride, b_panel, kWidth,
                                                 prefetch, [&](int64_t row, const auto &tile) MSG_MS_INLINE {
                                                   store_tile<adds>(tile, target.from_row(row));
                                                   if (epilogue && k + depth_block == depth)
                                                     epilogue(thread, i + r + row, row_count(tile), p, width);
                                                 });
          };
          k == 0 && !accumulate ? run(std::false_type()) : run(std::true_type());
        }
      }
    }
  }
}

template <typename Arithmetic, int kVectors>
void gemm_with_tile(int64_t rows, int64_t columns, int64_t depth, Matrix a, Matrix b, float *c, bool accumulate,
                    const Epilogue &epilogue) {
  constexpr int64_t kRows = tile_rows(kVectors), kWidth = kVectors * kLanes;
  const int64_t row_tiles = (rows + kRows - 1) / kRows, column_tiles = (columns + kWidth - 1) / kWidth;
  const int64_t entries = rows * columns, threads = useful_threads(rows, columns, depth);
  // Threads may also split the depth and add up their results, which costs a fifth of a tile's step for each entry.
  const auto [by_rows, by_columns] = tiles_per_thread(row_tiles, column_tiles, threads);
  const int64_t by_depth =
    (row_tiles + 1) * column_tiles * ((depth + threads - 1) / threads) + entries * (threads + 1) / 5 / threads;
  if (threads == 1 || epilogue || b.packed != nullptr || by_depth >= std::min(by_rows, by_columns) * depth) {
    return split_among_threads(
      threads, rows, kRows, columns, kWidth, [&](int thread, int64_t i, int64_t i_end, int64_t j, int64_t j_end) {
        gemm_on_thread<Arithmetic, kVectors>(thread, i, i_end, j, j_end, depth, a, b, c, columns, accumulate, epilogue);
      });
  }
  const Workspace workspace((threads - 1) * entries);
  float *const partial_sums = workspace;  // of all threads but the first
  run_on_threads(threads, [&](int thread) {
    const int64_t k = depth * thread / threads, k_end = depth * (thread + 1) / threads;
    float *to = thread == 0 ? c : partial_sums + (thread - 1) * entries;
    const Matrix a_part{a.data + k * a.column_stride, a.row_stride, a.column_stride};
    const Matrix b_part{b.data + k * b.row_stride, b.row_stride, b.column_stride};
    gemm_on_thread<Arithmetic, kVectors>(thread, 0, rows, 0, columns, k_end - k, a_part, b_part, to, columns,
                                         accumulate && thread == 0, epilogue);
  });
  parallel_for(entries, 1 << 14, [&](int, int64_t begin, int64_t end) {
    for (int64_t thread = 0; thread < threads - 1; ++thread) {
      const float *from = partial_sums + thread * entries;
      for (int64_t e = begin; e < end; ++e) c[e] += from[e];
    }
  });
}

}  // namespace

int64_t panel_width(int64_t columns) { return tile_vectors(columns) * kLanes; }

void pack(int64_t depth, int64_t columns, Matrix b, float *to) {
  with_tile_vectors(columns, [&](auto vectors) {
    constexpr int64_t kWidth = vectors * kLanes;
    parallel_for((columns + kWidth - 1) / kWidth, 1, [&](int, int64_t begin, int64_t end) {
      for (int64_t p = begin * kWidth; p < end * kWidth; p += kWidth) {
        pack_panel<vectors>(b, 0, depth, p, std::min(kWidth, columns - p), to + p * depth);
      }
    });
  });
}

SharedMatrix::SharedMatrix(bool packed, int64_t depth, int64_t columns, Matrix b)
    : matrix_(b), workspace_(packed ? round_up(columns, panel_width(columns)) * depth : 1) {
  if (!packed) return;
  pack(depth, columns, b, workspace_);
  matrix_.packed = workspace_;
}

void gemm(int64_t rows, int64_t columns, int64_t depth, Matrix a, Matrix b, float *c, const Epilogue &epilogue,
          bool accumulate) {
  if (b.strassen) return strassen_gemm(rows, columns, depth, a, b.packed, c, epilogue);
  with_tile_vectors(columns, [&](auto vectors) {
    gemm_with_tile<SinglePrecision, vectors>(rows, columns, depth, a, b, c, accumulate, epilogue);
  });
}

void gemm_pairs(int64_t rows, int64_t columns, int64_t pairs, Matrix a, Matrix b, float *c, const Epilogue &epilogue,
                bool accumulate) {
  with_tile_vectors(columns, [&](auto vectors) {
    gemm_with_tile<BFloat16Arithmetic, vectors>(rows, columns, pairs, a, b, c, accumulate, epilogue);
  });
}

}  // namespace msg_ms
