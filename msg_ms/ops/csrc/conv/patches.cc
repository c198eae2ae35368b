// Kernels that unfold the patches of the two overlapped convolutions into rows for a GEMM, and their gradients; see
// patches.py. The rows are in window order, so the convolution's output needs no rearrangement.

#include "conv/patches.h"

// images (B, C, height, width), sizes [window, region, kernel, stride, padding] -> (rows, C * kernel * kernel)
MSG_MS_KERNEL(image_patches) {
  using namespace msg_ms;
  constexpr int64_t kKernel = 7;  // that of the models: the compiler knows the size of these copies
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
        if (patches.kernel == kKernel && patches.is_inside(y, column)) {
          patches.for_each_line(y, column, [&](int64_t source, int64_t target, int64_t) {
            std::memcpy(to + target, from + source, kKernel * sizeof(float));
          });
          continue;
        }
        std::memset(to, 0, n * sizeof(float));
        patches.for_each_line(y, column, [&](int64_t source, int64_t target, int64_t count) {
          for (int64_t i = 0; i < count; ++i) to[target + i] = from[source + i];
        });
      }
    }
  });
  return 0;
}

// sizes, gradient of the patches, images (for their shape) -> gradient of the images
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

// tokens (rows, C), sizes [height, width, window, region, next region] -> (rows / 4, 9 * C), channel by channel
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

// sizes, gradient of the patches -> gradient of the tokens
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
