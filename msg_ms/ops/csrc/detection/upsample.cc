// Nearest-neighbour upsampling added to a map, and its gradient; see upsample.py.

#include "base/kernel.h"

namespace msg_ms {
namespace {

// Run body(plane, row of the large map, row of the small map) for all rows; a plane is one channel of one image.
template <typename Body>
void for_each_row(const int64_t *large, const int64_t *small, const float *rows, const Body &body) {
  const int64_t planes = large[0] * large[1], grain = kMinElements / (large[2] * large[3] + 1) + 1;
  parallel_for(planes, grain, [&](int, int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) {
      for (int64_t y = 0; y < large[2]; ++y) {
        body((plane * large[2] + y) * large[3], (plane * small[2] + static_cast<int64_t>(rows[y])) * small[3]);
      }
    }
  });
}

}  // namespace
}  // namespace msg_ms

// x (B, C, H, W), small (B, C, h, w), rows (H,) and columns (W,) of `small` that every pixel copies -> (B, C, H, W)
MSG_MS_KERNEL(upsample_add) {
  using namespace msg_ms;
  const float *x = data(params, 0), *small = data(params, 1), *columns = data(params, 3);
  float *y = data(params, 4);
  for_each_row(shapes[0], shapes[1], data(params, 2), [&](int64_t to, int64_t from) {
    for (int64_t i = 0; i < shapes[0][3]; ++i) y[to + i] = x[to + i] + small[from + static_cast<int64_t>(columns[i])];
  });
  return 0;
}

// gradient of the output (B, C, H, W), small (B, C, h, w), rows, columns -> gradient of small (B, C, h, w)
MSG_MS_KERNEL(upsample_add_grad) {
  using namespace msg_ms;
  const float *dout = data(params, 0), *columns = data(params, 3);
  float *dsmall = data(params, 4);
  std::memset(dsmall, 0, size(shapes[1], 4) * sizeof(float));
  for_each_row(shapes[0], shapes[1], data(params, 2), [&](int64_t from, int64_t to) {
    for (int64_t i = 0; i < shapes[0][3]; ++i) dsmall[to + static_cast<int64_t>(columns[i])] += dout[from + i];
  });
  return 0;
}
