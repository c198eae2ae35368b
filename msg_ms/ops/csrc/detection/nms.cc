// Kernel of greedy non-maximum suppression; see nms.py.

#include <algorithm>
#include <vector>

#include "base/kernel.h"

namespace msg_ms {
namespace {

// Boxes as one array per coordinate, as vectors need them.
struct Columns {
  std::vector<float> x1, y1, x2, y2, area;

  Columns(const float *boxes, int64_t n) : x1(n), y1(n), x2(n), y2(n), area(n) {
    for (int64_t i = 0; i < n; ++i) {
      x1[i] = boxes[4 * i], y1[i] = boxes[4 * i + 1], x2[i] = boxes[4 * i + 2], y2[i] = boxes[4 * i + 3];
    }
    for (int64_t i = 0; i < n; ++i) area[i] = (x2[i] - x1[i]) * (y2[i] - y1[i]);
  }
};

constexpr int64_t kChunk = 256;

// Remove the boxes after `i` whose IoU with it is above the threshold.
void suppress(const Columns &boxes, int64_t i, int64_t n, float threshold, float *keep) {
  const float x1 = boxes.x1[i], y1 = boxes.y1[i], x2 = boxes.x2[i], y2 = boxes.y2[i], area = boxes.area[i];
  float overlap[kChunk];
  for (int64_t first = i + 1; first < n; first += kChunk) {
    const int64_t count = std::min(kChunk, n - first);
    const float *bx1 = &boxes.x1[first], *by1 = &boxes.y1[first], *bx2 = &boxes.x2[first], *by2 = &boxes.y2[first];
    // Two loops: in one, the compiler would fuse the product with the subtraction below and round differently.
#pragma omp simd
    for (int64_t k = 0; k < count; ++k) {
      const float w = std::min(x2, bx2[k]) - std::max(x1, bx1[k]), h = std::min(y2, by2[k]) - std::max(y1, by1[k]);
      overlap[k] = (w > 0 ? w : 0.0f) * (h > 0 ? h : 0.0f);
    }
    const float *other = &boxes.area[first];
    float *to = keep + first;
#pragma omp simd
    for (int64_t k = 0; k < count; ++k) {
      to[k] = overlap[k] / (area + other[k] - overlap[k]) > threshold ? 0.0f : to[k];
    }
  }
}

}  // namespace
}  // namespace msg_ms

// boxes (B, N, 4) by falling score, valid (B, N), threshold (1,) -> 1 for each box that is kept (B, N)
MSG_MS_KERNEL(nms) {
  using namespace msg_ms;
  const int64_t batch = shapes[0][0], n = shapes[0][1];
  const float *valid = data(params, 1), threshold = data(params, 2)[0];
  parallel_for(batch, 1, [&](int, int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const Columns boxes(data(params, 0) + b * n * 4, n);
      float *keep = data(params, 3) + b * n;
      for (int64_t i = 0; i < n; ++i) keep[i] = valid[b * n + i] != 0 ? 1.0f : 0.0f;
      for (int64_t i = 0; i < n; ++i) {
        if (keep[i] != 0) suppress(boxes, i, n, threshold, keep);
      }
    }
  });
  return 0;
}
