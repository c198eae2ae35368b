// The patches of the two overlapped convolutions, with their rows in window order; see patches.py.
#pragma once

#include <vector>

#include "base/kernel.h"

namespace msg_ms {

// Return the row of each token (y, x) of a map in window order: regions row by row, windows of a region row by row,
// tokens of a window row by row. With `msg_tokens` each window has its MSG token in front.
inline std::vector<int64_t> window_order(int64_t height, int64_t width, int64_t window_size, int64_t region_size,
                                         bool msg_tokens = false) {
  // The row is a sum of a part for y and a part for x.
  const int64_t stride = window_size * window_size + msg_tokens, regions_across = width / (window_size * region_size);
  const auto part = [&](int64_t at, int64_t line, int64_t region_lines) {
    const int64_t window = at / window_size;
    const int64_t windows =
      window / region_size * region_lines * region_size * region_size + window % region_size * line;
    return windows * stride;
  };
  std::vector<int64_t> order(height * width), parts(width);
  for (int64_t x = 0; x < width; ++x) parts[x] = part(x, 1, 1) + x % window_size + msg_tokens;
  for (int64_t y = 0; y < height; ++y) {
    const int64_t row = part(y, region_size, regions_across) + y % window_size * window_size;
    for (int64_t x = 0; x < width; ++x) order[y * width + x] = row + parts[x];
  }
  return order;
}

// The patches of images (B, C, height, width), one for each token of the patch embedding.
struct ImagePatches {
  int64_t batch, channels, height, width, rows, columns;
  int64_t window_size, region_size, kernel, stride, padding;  // the sizes of a kernel call
  std::vector<int64_t> order;

  ImagePatches(const int64_t *shape, const float *sizes)
      : batch(shape[0]), channels(shape[1]), height(shape[2]), width(shape[3]) {
    window_size = sizes[0], region_size = sizes[1];
    kernel = sizes[2], stride = sizes[3], padding = sizes[4];
    rows = (height + 2 * padding - kernel) / stride + 1;
    columns = (width + 2 * padding - kernel) / stride + 1;
    order = window_order(rows, columns, window_size, region_size);
  }

  int64_t patch_size() const { return channels * kernel * kernel; }

  // Whether patch (y, x) has no padding.
  bool is_inside(int64_t y, int64_t x) const {
    const int64_t top = y * stride - padding, left = x * stride - padding;
    return top >= 0 && left >= 0 && top + kernel <= height && left + kernel <= width;
  }

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

  TokenPatches(int64_t channel_count, const float *sizes, int64_t total_rows) : channels(channel_count) {
    height = sizes[0], width = sizes[1], window_size = sizes[2];
    region_size = sizes[3], next_region_size = sizes[4];
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
    return window_order(h, w, window_size, region, true);
  }

  std::vector<int64_t> msg_token_rows(int64_t h, int64_t w, int64_t region) const {
    std::vector<int64_t> rows = window_order(h, w, 1, region);
    for (int64_t &row : rows) row *= tokens;
    return rows;
  }

  std::vector<int64_t> patch_rows_, next_patch_rows_, msg_rows_, next_msg_rows_;
};

}  // namespace msg_ms
