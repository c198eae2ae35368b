// Kernels of the patch embedding and the patch merging for inference in bfloat16: patches, product, bias and normalization
// in one pass over chunks of rows that stay in the cache; see packed.py.

#include "normalize_bf16.h"
#include "patches.h"

namespace msg_ms {
namespace {

// Compute out (rows, columns) = LayerNorm(patches weight^T + bias). fill(i, n, to) rounds the patches of rows [i, i + n).
template <typename Arithmetic, typename Fill>
void project_patches(int64_t rows, int64_t depth, int64_t columns, const float *weight, const float *bias,
                     const float *gamma, const float *beta, float *out, const Fill &fill) {
  const auto run = [&](int64_t first, int64_t n) {
    const HalfRows patches(n, depth);
    parallel_for(n, 4, [&](int, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        fill(first + i, i, patches);
        patches.complete(i);
      }
    });
    float *const to = out + first * columns;
    gemm_bf16<Arithmetic>(n, columns, patches, 0, weight, [&](const FinishedTile &tile) {
      for (int64_t r = 0; r < tile.rows; ++r) {
        std::memcpy(to + (tile.row + r) * columns + tile.column, tile.data + r * tile.stride, tile.columns * sizeof(float));
      }
    });
    normalize_in_place(to, n, bias, gamma, beta, columns);
  };
  constexpr int64_t kManyRows = 64, kCachePairs = 1 << 16;
  if (rows < kManyRows * num_threads()) return run(0, rows);
  const int64_t chunk = std::max<int64_t>(kManyRows, 2 * kCachePairs / depth);
  parallel_for_serial(rows, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += chunk) run(i, std::min(chunk, end - i));
  });
}

template <typename Arithmetic>
void embed(void **params, int64_t **shapes) {
  const ImagePatches patches(shapes[0], data(params, 1));
  const int64_t depth = patches.patch_size(), tokens = patches.rows * patches.columns, columns = shapes[4][0];
  std::vector<int64_t> position(tokens);  // in the map, of each row in window order
  for (int64_t i = 0; i < tokens; ++i) position[patches.order[i]] = i;
  const float *x = data(params, 0);
  project_patches<Arithmetic>(
    patches.batch * tokens, depth, columns, data(params, 2), data(params, 3), data(params, 4), data(params, 5),
    data(params, 6), [&](int64_t row, int64_t i, const HalfRows &to) {
      const int64_t at = position[row % tokens];
      const float *image = x + row / tokens * patches.channels * patches.height * patches.width;
      std::memset(to.at(i, 0), 0, depth * sizeof(BFloat16));
      patches.for_each_line(at / patches.columns, at % patches.columns, [&](int64_t from, int64_t column, int64_t n) {
        for_each_vector(n, [&](int64_t c, int64_t lanes) {
          store_rounded<Arithmetic>(to.at(i, column + c), load_lanes(image + from + c, lanes), lanes);
        });
      });
    });
}

template <typename Arithmetic>
void merge(void **params, int64_t **shapes) {
  const int64_t channels = shapes[0][1], columns = shapes[4][0];
  const TokenPatches patches(channels, data(params, 1), shapes[0][0]);
  std::vector<int64_t> sources(patches.next_rows * 9);
  for (int64_t line = 0; line < patches.lines(); ++line) {
    patches.for_each_patch(line, [&](int64_t row, const int64_t *from) { std::copy(from, from + 9, &sources[row * 9]); });
  }
  const float *x = data(params, 0);
  project_patches<Arithmetic>(
    patches.batch * patches.next_rows, 9 * channels, columns, data(params, 2), data(params, 3), data(params, 4),
    data(params, 5), data(params, 6), [&](int64_t row, int64_t i, const HalfRows &to) {
      const int64_t *from = &sources[row % patches.next_rows * 9];
      const float *image = x + row / patches.next_rows * patches.rows * channels;
      for (int64_t k = 0; k < 9; ++k) {
        if (from[k] < 0) {
          std::memset(to.at(i, k * channels), 0, channels * sizeof(BFloat16));
          continue;
        }
        for_each_vector(channels, [&](int64_t c, int64_t lanes) {
          const Vec entries = load_lanes(image + from[k] * channels + c, lanes);
          store_rounded<Arithmetic>(to.at(i, k * channels + c), entries, lanes);
        });
      }
    });
}

}  // namespace
}  // namespace msg_ms

// images (B, C, height, width), geometry [window, region, kernel, stride, padding], packed weight (O, C * kernel * kernel),
// bias, gamma, beta (O,) -> tokens (rows, O) in window order
MSG_MS_KERNEL(embed_bf16) {
  if (!msg_ms::has_bfloat16()) return 1;
  msg_ms::embed<msg_ms::NativeBFloat16>(params, shapes);
  return 0;
}

// tokens (rows, C), geometry [height, width, window, region, next region], packed weight (O, 9 * C) with columns (3, 3, C),
// bias, gamma, beta (O,) -> (rows / 4, O)
MSG_MS_KERNEL(merge_bf16) {
  if (!msg_ms::has_bfloat16()) return 1;
  msg_ms::merge<msg_ms::NativeBFloat16>(params, shapes);
  return 0;
}

// The same without the instructions, for tests.
MSG_MS_KERNEL(embed_bf16_portable) {
  msg_ms::embed<msg_ms::PortableBFloat16>(params, shapes);
  return 0;
}

MSG_MS_KERNEL(merge_bf16_portable) {
  msg_ms::merge<msg_ms::PortableBFloat16>(params, shapes);
  return 0;
}
