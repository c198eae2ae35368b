// GEMM in bfloat16; see gemm_bf16.h.

#include "gemm_bf16.h"

#include "gemm_common.h"

namespace msg_ms {

bool has_bfloat16() {
#if MSG_MS_BFLOAT16
  return __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

void pack_bf16(int64_t depth, int64_t columns, const float *weight, float *to) {
  const int64_t pairs = pair_count(depth), width = tile_vectors(columns) * kLanes;
  parallel_for((columns + width - 1) / width, 1, [&](int, int64_t begin, int64_t end) {
    for (int64_t p = begin * width; p < end * width; p += width) {
      float *const panel = to + p * pairs;
      std::memset(panel, 0, pairs * width * sizeof(float));
      for (int64_t j = 0; j < std::min(width, columns - p); ++j) {
        const float *from = weight + (p + j) * depth;
        BFloat16 *column = reinterpret_cast<BFloat16 *>(panel + j);
        for (int64_t k = 0; k < depth; ++k) {
          column[k / 2 * 2 * width + k % 2] = PortableBFloat16::round(Vec{} + from[k])[0];
        }
      }
    }
  });
}

template <typename Arithmetic>
void gemm_bf16(int64_t rows, int64_t columns, const HalfRows &a, int64_t first, const float *packed,
               const TileFunction &finish) {
  with_tile_vectors(columns, [&](auto vectors) {
    constexpr int64_t kRows = tile_rows(vectors), kWidth = vectors * kLanes;
    const int64_t pairs = a.pairs;
    split_among_threads(
      useful_threads(rows, columns, pairs), rows, kRows, columns, kWidth,
      [&](int thread, int64_t i, int64_t i_end, int64_t j, int64_t j_end) {
        const Workspace workspace(kRows * kWidth);
        float *const buffer = workspace;
        for (int64_t p = j; p < j_end; p += kWidth) {
          const float *panel = packed + p * pairs;
          const float *const next = p + kWidth < j_end ? panel + pairs * kWidth : packed + j * pairs;
          const PanelPrefetch prefetch(next, kWidth, (i_end - i + kRows - 1) / kRows);
          multiply_panel<vectors, Arithmetic>(
            i_end - i, pairs, a.row(first + i), a.stride, 1, panel, kWidth, prefetch,
            [&](int64_t row, const auto &tile) MSG_MS_INLINE {
              store_tile<false>(tile, {nullptr, 0, buffer, kWidth, kWidth});
              finish({thread, i + row, row_count(tile), p, std::min(kWidth, columns - p), buffer, kWidth});
            });
        }
      });
  });
}

template void gemm_bf16<PortableBFloat16>(int64_t, int64_t, const HalfRows &, int64_t, const float *, const TileFunction &);
#if MSG_MS_BFLOAT16
template void gemm_bf16<NativeBFloat16>(int64_t, int64_t, const HalfRows &, int64_t, const float *, const TileFunction &);
#endif

}  // namespace msg_ms
