// Kernels of the patch embedding and the patch merging for inference in bfloat16: patches, product, bias and
// normalization in one pass over chunks of rows that stay in the cache; see packed.py.

#include "base/chunks.h"
#include "base/layer_norm.h"
#include "conv/patches.h"
#include "gemm/gemm_bfloat16.h"

namespace msg_ms {
namespace {

// Compute LayerNorm(patches weight^T + bias), (rows, columns): row i is written to out + out_row(i) * columns. fill(i,
// n, to) rounds the patches of rows [i, i + n).
template <typename Fill, typename RowOf>
void project_patches(int64_t rows, int64_t depth, int64_t columns, const float *weight, const float *bias,
                     const float *gamma, const float *beta, float *out, const Fill &fill, const RowOf &out_row) {
  for_each_chunk(rows, pair_count(depth), 1, has_many_rows(rows), [&](int64_t first, int64_t n) {
    const BFloat16Rows patches(n, depth);
    const Workspace product(n * columns);
    parallel_for(n, 4, [&](int, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) fill(first + i, i, patches);
    });
    gemm_bfloat16(n, columns, patches, weight, {ProductTarget::kStore, nullptr, nullptr, product, nullptr, columns});
    parallel_for(n, kMinElements / columns + 1, [&](int, int64_t begin, int64_t end) {
      for_rows_at_once(begin, end, [&](int64_t i, auto count) {
        float *to[count];
        for (int r = 0; r < count; ++r) to[r] = out + out_row(first + i + r) * columns;
        normalize_rows<count>(product + i * columns, columns, bias, gamma, beta, columns,
                              [&](int r, int64_t c, int64_t lanes, Vec value)
                                MSG_MS_INLINE { store_lanes(to[r] + c, value, lanes); });
      });
    });
  });
}

void embed(void **params, int64_t **shapes) {
  const float *const messages = data(params, 6);
  const ImagePatches patches(shapes[0], data(params, 1));
  const int64_t depth = patches.patch_size(), tokens = patches.rows * patches.columns, columns = shapes[4][0];
  const int64_t window = patches.window_size * patches.window_size;  // patches
  const int64_t region = patches.region_size * patches.region_size;  // windows
  float *const out = data(params, 7);
  std::vector<int64_t> position(tokens);  // in the map, of each row in window order
  for (int64_t i = 0; i < tokens; ++i) position[patches.order[i]] = i;
  // The images are rounded first, then copied piece by piece: a line of a patch is shorter than a vector.
  constexpr int64_t kPiece = 8;  // numbers copied by one instruction
  const int64_t pixels = size(shapes[0], 4), image_pixels = pixels / patches.batch;
  const Workspace workspace(pixels / 2 + kPiece);
  BFloat16 *const images = reinterpret_cast<BFloat16 *>(static_cast<float *>(workspace));
  const float *x = data(params, 0);
  parallel_for(pixels, 4 * kMinElements, [&](int, int64_t begin, int64_t end) {
    for_each_vector(end - begin, [&](int64_t i, int64_t lanes) {
      store_rounded(images + begin + i, load_lanes(x + begin + i, lanes), lanes);
    });
  });
  project_patches(
    patches.batch * tokens, depth, columns, data(params, 2), data(params, 3), data(params, 4), data(params, 5), out,
    [&](int64_t row, int64_t i, const BFloat16Rows &to) {
      const int64_t at = position[row % tokens], y = at / patches.columns, column = at % patches.columns;
      const BFloat16 *const image = images + row / tokens * image_pixels;
      const bool fits = patches.kernel <= kPiece && depth + kPiece - patches.kernel <= 2 * to.stride;
      if (fits && patches.is_inside(y, column)) {
        // The excess of a copy is overwritten by the next one, that of the last by the zero of an odd depth.
        patches.for_each_line(y, column, [&](int64_t from, int64_t first, int64_t) {
          std::memcpy(to.at(i, first), image + from, kPiece * sizeof(BFloat16));
        });
        if (depth % 2 != 0) *to.at(i, depth) = 0;
        return;
      }
      std::memset(to.at(i, 0), 0, depth * sizeof(BFloat16));
      patches.for_each_line(y, column, [&](int64_t from, int64_t first, int64_t n) {
        std::copy(image + from, image + from + n, to.at(i, first));
      });
    },
    [=](int64_t row) { return row + row / window + 1; });
  for (int64_t w = 0; w < patches.batch * tokens / window; ++w) {
    std::memcpy(out + w * (window + 1) * columns, messages + w % region * columns, columns * sizeof(float));
  }
}

void merge(void **params, int64_t **shapes) {
  const int64_t channels = shapes[0][1], columns = shapes[4][0];
  const TokenPatches patches(channels, data(params, 1), shapes[0][0]);
  std::vector<int64_t> sources(patches.next_rows * 9);
  parallel_for(patches.lines(), 4, [&](int, int64_t begin, int64_t end) {
    for (int64_t line = begin; line < end; ++line) {
      patches.for_each_patch(line,
                             [&](int64_t row, const int64_t *from) { std::copy(from, from + 9, &sources[row * 9]); });
    }
  });
  const float *x = data(params, 0);
  project_patches(
    patches.batch * patches.next_rows, 9 * channels, columns, data(params, 2), data(params, 3), data(params, 4),
    data(params, 5), data(params, 6),
    [&](int64_t row, int64_t i, const BFloat16Rows &to) {
      const int64_t *from = &sources[row % patches.next_rows * 9];
      const float *image = x + row / patches.next_rows * patches.rows * channels;
      for (int64_t k = 0; k < 9; ++k) {
        if (from[k] < 0) {
          std::memset(to.at(i, k * channels), 0, channels * sizeof(BFloat16));
          continue;
        }
        for_each_vector(channels, [&](int64_t c, int64_t lanes) {
          const Vec entries = load_lanes(image + from[k] * channels + c, lanes);
          store_rounded(to.at(i, k * channels + c), entries, lanes);
        });
      }
    },
    [](int64_t row) { return row; });
}

}  // namespace
}  // namespace msg_ms

// images (B, C, height, width), sizes [window, region, kernel, stride, padding], packed weight (O, C * kernel *
// kernel), bias, gamma, beta (O,), MSG tokens of a region (windows, O) -> tokens (rows, O) in window order, each
// window's MSG token first
MSG_MS_KERNEL(embed_bfloat16) {
  if (!msg_ms::has_bfloat16()) return 1;
  msg_ms::embed(params, shapes);
  return 0;
}

// tokens (rows, C), sizes [height, width, window, region, next region], packed weight (O, 9 * C) with columns (3, 3,
// C), bias, gamma, beta (O,) -> (rows / 4, O)
MSG_MS_KERNEL(merge_bfloat16) {
  if (!msg_ms::has_bfloat16()) return 1;
  msg_ms::merge(params, shapes);
  return 0;
}
