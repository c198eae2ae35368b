// Kernels that unfold the patches of the two overlapped convolutions into rows for a GEMM, and their gradients; see
// patches.py. The rows are in window order, so the convolution's output needs no rearrangement.

#include <vector>

#include "kernel.h"

namespace msg_ms {
namespace {

// Return the row of each token (y, x) of a map in window order: regions row by row, windows of a region row by row, tokens
// of a window row by row.
std::vector<int64_t> window_order(int64_t height, int64_t width, int64_t window_size, int64_t region_size) {
  std::vector<int64_t> order(height * width);
  const int64_t regions_across = width / (window_size * region_size);
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < width; ++x) {
      const int64_t window_y = y / window_size, window_x = x / window_size;
      const int64_t in_region = window_y % region_size * region_size + window_x % region_size;
      const int64_t region = window_y / region_size * regions_across + window_x / region_size;
      const int64_t window = region * region_size * region_size + in_region;
      order[y * width + x] = window * window_size * window_size + y % window_size * window_size + x % window_size;
    }
  }
  return order;
}

// The patches of images (B, C, height, width), one for each token of the patch embedding.
struct ImagePatches {
  int64_t batch, channels, height, width, kernel, stride, padding, rows, columns;
  std::vector<int64_t> order;

  ImagePatches(const int64_t *shape, const float *geometry)
      : batch(shape[0]), channels(shape[1]), height(shape[2]), width(shape[3]) {
    kernel = geometry[2], stride = geometry[3], padding = geometry[4];
    rows = (height + 2 * padding - kernel) / stride + 1;
    columns = (width + 2 * padding - kernel) / stride + 1;
    order = window_order(rows, columns, geometry[0], geometry[1]);
  }

  int64_t patch_size() const { return channels * kernel * kernel; }

  // Call body(offset in the image, offset in the patch, n) for each piece of an image line inside patch (y, x).
  template <typename Body>
  void for_each_line(int64_t y, int64_t x, const Body &body) const {
    const int64_t top = y * stride - padding, left = x * stride - padding;
    const int64_t first = left < 0 ? -left : 0, last = left + kernel > width ? width - left : kernel;
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t ky = 0; ky < kernel; ++ky) {
        if (top + ky < 0 || top + ky >= height) continue;
        body((c * height + top + ky) * width + left + first, (c * kernel + ky) * kernel + first, last - first);
      }
    }
  }
};

// The 3x3 patches with stride 2 of a stage's map of patch tokens and of its map of MSG tokens (one per window).
struct TokenPatches {
  int64_t height, width, window_size, region_size, next_region_size, channels, batch;
  int64_t tokens;           // of a window, with its MSG token
  int64_t rows, next_rows;  // tokens of an image, before and after the merging

  TokenPatches(int64_t channel_count, const float *geometry, int64_t total_rows) : channels(channel_count) {
    height = geometry[0], width = geometry[1], window_size = geometry[2];
    region_size = geometry[3], next_region_size = geometry[4];
    tokens = window_size * window_size + 1;
    rows = height / window_size * (width / window_size) * tokens;
    next_rows = rows / 4;
    batch = total_rows / rows;
    patch_rows_ = patch_token_rows(height, width, region_size);
    next_patch_rows_ = patch_token_rows(height / 2, width / 2, next_region_size);
    msg_rows_ = msg_token_rows(height / window_size, width / window_size, region_size);
    next_msg_rows_ = msg_token_rows(height / window_size / 2, width / window_size / 2, next_region_size);
  }

  // Lines of both merged maps: first those of the patch tokens, then those of the MSG tokens.
  int64_t lines() const { return height / 2 + height / window_size / 2; }

  // Call body(row of the patch, its nine source rows or -1) for each patch of a line.
  template <typename Body>
  void for_each_patch(int64_t line, const Body &body) const {
    const bool is_patch_token = line < height / 2;
    const int64_t y = is_patch_token ? line : line - height / 2;
    const int64_t h = is_patch_token ? height : height / window_size, w = is_patch_token ? width : width / window_size;
    const std::vector<int64_t> &from = is_patch_token ? patch_rows_ : msg_rows_;
    const std::vector<int64_t> &to = is_patch_token ? next_patch_rows_ : next_msg_rows_;
    for (int64_t x = 0; x < w / 2; ++x) {
      int64_t sources[9];
      for (int64_t k = 0; k < 9; ++k) {
        const int64_t sy = 2 * y + k / 3 - 1, sx = 2 * x + k % 3 - 1;
        sources[k] = sy < 0 || sx < 0 || sy >= h || sx >= w ? -1 : from[sy * w + sx];
      }
      body(to[y * (w / 2) + x], sources);
    }
  }

 private:
  std::vector<int64_t> patch_token_rows(int64_t h, int64_t w, int64_t region) const {
    std::vector<int64_t> rows = window_order(h, w, window_size, region);
    for (int64_t &row : rows) row += row / (window_size * window_size) + 1;
    return rows;
  }

  std::vector<int64_t> msg_token_rows(int64_t h, int64_t w, int64_t region) const {
    std::vector<int64_t> rows = window_order(h, w, 1, region);
    for (int64_t &row : rows) row *= tokens;
    return rows;
  }

  std::vector<int64_t> patch_rows_, next_patch_rows_, msg_rows_, next_msg_rows_;
};

}  // namespace
}  // namespace msg_ms

// images (B, C, height, width), geometry [window, region, kernel, stride, padding] -> (rows, C * kernel * kernel)
MSG_MS_KERNEL(image_patches) {
  using namespace msg_ms;
  const ImagePatches patches(shapes[0], data(params, 1));
  const float *x = data(params, 0);
  float *out = data(params, 2);
  const int64_t n = patches.patch_size(), tokens = patches.rows * patches.columns;
  parallel_for(patches.batch * patches.rows, 4, [&](int, int64_t begin, int64_t end) {
    for (int64_t line = begin; line < end; ++line) {
      const int64_t b = line / patches.rows, y = line % patches.rows;
      const float *from = x + b * patches.channels * patches.height * patches.width;
      for (int64_t column = 0; column < patches.columns; ++column) {
        float *to = out + (b * tokens + patches.order[y * patches.columns + column]) * n;
        std::memset(to, 0, n * sizeof(float));
        patches.for_each_line(y, column, [&](int64_t source, int64_t target, int64_t count) {
          for (int64_t i = 0; i < count; ++i) to[target + i] = from[source + i];
        });
      }
    }
  });
  return 0;
}

// geometry, gradient of the patches, images (for their shape) -> gradient of the images
MSG_MS_KERNEL(image_patches_grad) {
  using namespace msg_ms;
  const ImagePatches patches(shapes[2], data(params, 0));
  const float *dpatches = data(params, 1);
  float *dx = data(params, 3);
  const int64_t n = patches.patch_size(), tokens = patches.rows * patches.columns;
  const int64_t pixels = patches.channels * patches.height * patches.width;
  parallel_for(patches.batch, 1, [&](int, int64_t begin, int64_t end) {
    std::memset(dx + begin * pixels, 0, (end - begin) * pixels * sizeof(float));
    for (int64_t b = begin; b < end; ++b) {
      for (int64_t token = 0; token < tokens; ++token) {
        const float *from = dpatches + (b * tokens + patches.order[token]) * n;
        const int64_t y = token / patches.columns, column = token % patches.columns;
        patches.for_each_line(y, column, [&](int64_t source, int64_t target, int64_t count) {
          for (int64_t i = 0; i < count; ++i) dx[b * pixels + source + i] += from[target + i];
        });
      }
    }
  });
  return 0;
}

// tokens (rows, C), geometry [height, width, window, region, next region] -> (rows / 4, 9 * C), channel by channel
MSG_MS_KERNEL(token_patches) {
  using namespace msg_ms;
  const int64_t n = shapes[0][1];
  const TokenPatches patches(n, data(params, 1), shapes[0][0]);
  const float *x = data(params, 0);
  float *out = data(params, 2);
  const std::vector<float> zeros(n);
  parallel_for(patches.batch * patches.lines(), 1, [&](int, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = i / patches.lines();
      patches.for_each_patch(i % patches.lines(), [&](int64_t row, const int64_t *sources) {
        const float *from[9];
        for (int k = 0; k < 9; ++k) from[k] = sources[k] < 0 ? zeros.data() : x + (b * patches.rows + sources[k]) * n;
        float *to = out + (b * patches.next_rows + row) * 9 * n;
        for (int64_t c = 0; c < n; ++c) {
          for (int k = 0; k < 9; ++k) to[c * 9 + k] = from[k][c];
        }
      });
    }
  });
  return 0;
}

// geometry, gradient of the patches -> gradient of the tokens
MSG_MS_KERNEL(token_patches_grad) {
  using namespace msg_ms;
  const int64_t n = shapes[2][1];
  const TokenPatches patches(n, data(params, 0), shapes[2][0]);
  const float *dpatches = data(params, 1);
  float *dx = data(params, 2);
  // The patches that contain a token, four at most, and its place among their nine.
  struct Use {
    int64_t row;
    int place;
  };
  std::vector<std::vector<Use>> uses(patches.rows);
  for (int64_t line = 0; line < patches.lines(); ++line) {
    patches.for_each_patch(line, [&](int64_t row, const int64_t *sources) {
      for (int k = 0; k < 9; ++k) {
        if (sources[k] >= 0) uses[sources[k]].push_back({row, k});
      }
    });
  }
  parallel_for(patches.batch * patches.rows, 64, [&](int, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float *image = dpatches + i / patches.rows * patches.next_rows * 9 * n;
      float *to = dx + i * n;
      std::memset(to, 0, n * sizeof(float));
      for (const Use &use : uses[i % patches.rows]) {
        const float *from = image + use.row * 9 * n + use.place;
        for (int64_t c = 0; c < n; ++c) to[c] += from[c * 9];
      }
    }
  });
  return 0;
}
