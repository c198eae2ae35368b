// Patches of the two overlapped convolutions as rows for a matrix product, and back; see patches.py.
//
// Rows come in the order of windows, so that what a convolution gives needs no rearrangement.

#include <vector>

#include "kernel.h"

namespace msg_ms {
namespace {

// Position of each cell of a map among its windows: regions row by row, windows of a region, tokens of a window.
std::vector<int64_t> window_order(int64_t height, int64_t width, int64_t window, int64_t region) {
  std::vector<int64_t> order(height * width);
  const int64_t regions_across = width / (window * region);
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < width; ++x) {
      const int64_t wy = y / window, wx = x / window;
      const int64_t in_region = wy % region * region + wx % region;
      const int64_t window_index = (wy / region * regions_across + wx / region) * region * region + in_region;
      order[y * width + x] = window_index * window * window + y % window * window + x % window;
    }
  }
  return order;
}

struct Image {
  int64_t batch, channels, height, width, kernel, stride, padding, rows, columns;
  std::vector<int64_t> order;

  explicit Image(const int64_t *shape, const float *layout) : batch(shape[0]), channels(shape[1]), height(shape[2]), width(shape[3]) {
    kernel = layout[2], stride = layout[3], padding = layout[4];
    rows = (height + 2 * padding - kernel) / stride + 1;
    columns = (width + 2 * padding - kernel) / stride + 1;
    order = window_order(rows, columns, layout[0], layout[1]);
  }

  int64_t patch() const { return channels * kernel * kernel; }

  // Calls use(offset in the image, offset in the patch, n) for the pieces of lines that a patch has of the image.
  template <typename Use>
  void for_each_line(int64_t y, int64_t x, const Use &use) const {
    const int64_t top = y * stride - padding, left = x * stride - padding;
    const int64_t first = left < 0 ? -left : 0, last = left + kernel > width ? width - left : kernel;
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t ky = 0; ky < kernel; ++ky) {
        if (top + ky < 0 || top + ky >= height) continue;
        use((c * height + top + ky) * width + left + first, (c * kernel + ky) * kernel + first, last - first);
      }
    }
  }
};

// The 3x3 patches, two apart, of a stage's patch tokens, and in the same way of its messages.
struct Merge {
  int64_t height, width, window, region, next_region, channels, batch, tokens;  // tokens: of a window, with its message
  int64_t cells, next_cells;                                                   // rows of an image, before and after
  std::vector<int64_t> source, source_message, target, target_message;

  Merge(int64_t channel_count, const float *layout, int64_t rows) : channels(channel_count) {
    height = layout[0], width = layout[1], window = layout[2], region = layout[3], next_region = layout[4];
    tokens = window * window + 1;
    cells = height / window * (width / window) * tokens;
    next_cells = cells / 4;
    batch = rows / cells;
    source = rows_of(height, width, region);
    target = rows_of(height / 2, width / 2, next_region);
    source_message = messages_of(height / window, width / window, region);
    target_message = messages_of(height / window / 2, width / window / 2, next_region);
  }

  // Calls use(row of the patches, its nine source rows or -1) for row `line` of the merged maps: first the patch
  // tokens' lines, then the messages'.
  template <typename Use>
  void for_line(int64_t line, const Use &use) const {
    const bool patches = line < height / 2;
    const int64_t y = patches ? line : line - height / 2;
    const int64_t h = patches ? height : height / window, w = patches ? width : width / window;
    const std::vector<int64_t> &from = patches ? source : source_message, &to = patches ? target : target_message;
    for (int64_t x = 0; x < w / 2; ++x) {
      int64_t rows[9];
      for (int64_t k = 0; k < 9; ++k) {
        const int64_t sy = 2 * y + k / 3 - 1, sx = 2 * x + k % 3 - 1;
        rows[k] = sy < 0 || sx < 0 || sy >= h || sx >= w ? -1 : from[sy * w + sx];
      }
      use(to[y * (w / 2) + x], rows);
    }
  }

  int64_t lines() const { return height / 2 + height / window / 2; }

 private:
  std::vector<int64_t> rows_of(int64_t h, int64_t w, int64_t s) const {
    std::vector<int64_t> rows = window_order(h, w, window, s);
    for (int64_t &row : rows) row += row / (window * window) + 1;
    return rows;
  }

  std::vector<int64_t> messages_of(int64_t h, int64_t w, int64_t s) const {
    std::vector<int64_t> rows = window_order(h, w, 1, s);
    for (int64_t &row : rows) row *= tokens;
    return rows;
  }
};

}  // namespace
}  // namespace msg_ms

// images (B, C, height, width), layout [window, region, kernel, stride, padding] -> (rows, C * kernel * kernel)
MSG_MS_KERNEL(image_patches) {
  using namespace msg_ms;
  const Image image(shapes[0], data(params, 1));
  const float *x = data(params, 0);
  float *out = data(params, 2);
  const int64_t n = image.patch(), cells = image.rows * image.columns;
  parallel_for(image.batch * image.rows, 4, [&](int, int64_t begin, int64_t end) {
    for (int64_t line = begin; line < end; ++line) {
      const int64_t b = line / image.rows, y = line % image.rows;
      const float *from = x + b * image.channels * image.height * image.width;
      for (int64_t column = 0; column < image.columns; ++column) {
        float *to = out + (b * cells + image.order[y * image.columns + column]) * n;
        std::memset(to, 0, n * sizeof(float));
        image.for_each_line(y, column, [&](int64_t source, int64_t target, int64_t count) {
          for (int64_t i = 0; i < count; ++i) to[target + i] = from[source + i];
        });
      }
    }
  });
  return 0;
}

// layout, the patches' gradient, the images (for their shape) -> the images' gradient
MSG_MS_KERNEL(image_patches_grad) {
  using namespace msg_ms;
  const Image image(shapes[2], data(params, 0));
  const float *dpatches = data(params, 1);
  float *dx = data(params, 3);
  const int64_t n = image.patch(), cells = image.rows * image.columns, pixels = image.channels * image.height * image.width;
  parallel_for(image.batch, 1, [&](int, int64_t begin, int64_t end) {
    std::memset(dx + begin * pixels, 0, (end - begin) * pixels * sizeof(float));
    for (int64_t b = begin; b < end; ++b) {
      for (int64_t cell = 0; cell < cells; ++cell) {
        const float *from = dpatches + (b * cells + image.order[cell]) * n;
        image.for_each_line(cell / image.columns, cell % image.columns, [&](int64_t source, int64_t target, int64_t count) {
          for (int64_t i = 0; i < count; ++i) dx[b * pixels + source + i] += from[target + i];
        });
      }
    }
  });
  return 0;
}

// tokens (rows, C), layout [height, width, window, region, next region] -> (rows / 4, 9 * C), channel by channel
MSG_MS_KERNEL(token_patches) {
  using namespace msg_ms;
  const int64_t n = shapes[0][1];
  const Merge merge(n, data(params, 1), shapes[0][0]);
  const float *x = data(params, 0);
  float *out = data(params, 2);
  const std::vector<float> zeros(n);
  parallel_for(merge.batch * merge.lines(), 1, [&](int, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = i / merge.lines();
      merge.for_line(i % merge.lines(), [&](int64_t row, const int64_t *rows) {
        const float *from[9];
        for (int k = 0; k < 9; ++k) from[k] = rows[k] < 0 ? zeros.data() : x + (b * merge.cells + rows[k]) * n;
        float *to = out + (b * merge.next_cells + row) * 9 * n;
        for (int64_t c = 0; c < n; ++c) {
          for (int k = 0; k < 9; ++k) to[c * 9 + k] = from[k][c];
        }
      });
    }
  });
  return 0;
}

// layout and the patches' gradient -> the tokens' gradient
MSG_MS_KERNEL(token_patches_grad) {
  using namespace msg_ms;
  const int64_t n = shapes[2][1];
  const Merge merge(n, data(params, 0), shapes[2][0]);
  const float *dpatches = data(params, 1);
  float *dx = data(params, 2);
  // Which patches a token is in, and at which of their nine places: four at most.
  struct Use {
    int64_t row;
    int place;
  };
  std::vector<std::vector<Use>> uses(merge.cells);
  for (int64_t line = 0; line < merge.lines(); ++line) {
    merge.for_line(line, [&](int64_t row, const int64_t *rows) {
      for (int k = 0; k < 9; ++k) {
        if (rows[k] >= 0) uses[rows[k]].push_back({row, k});
      }
    });
  }
  parallel_for(merge.batch * merge.cells, 64, [&](int, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float *image = dpatches + i / merge.cells * merge.next_cells * 9 * n;
      float *to = dx + i * n;
      std::memset(to, 0, n * sizeof(float));
      for (const Use &use : uses[i % merge.cells]) {
        const float *from = image + use.row * 9 * n + use.place;
        for (int64_t c = 0; c < n; ++c) to[c] += from[c * 9];
      }
    }
  });
  return 0;
}
