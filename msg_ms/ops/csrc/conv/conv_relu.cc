// The gradient of the ReLU and of the bias that end a convolution of channels-first maps; see conv.py.

#include <vector>

#include "base/kernel.h"

// output (B, O, H, W), its gradient (B, O, H, W) -> gradient before the ReLU (B, O, H, W), gradient of the bias (O,)
MSG_MS_KERNEL(conv_relu_grad) {
  using namespace msg_ms;
  const int64_t images = shapes[0][0], channels = shapes[0][1], pixels = shapes[0][2] * shapes[0][3];
  const float *y = data(params, 0), *dy = data(params, 1);
  float *dx = data(params, 2), *dbias = data(params, 3);
  std::vector<float> sums(images * channels);
  parallel_for(images * channels, kMinElements / (pixels + 1) + 1, [&](int, int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) {
      float sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t p = plane * pixels; p < (plane + 1) * pixels; ++p) {
        dx[p] = y[p] > 0 ? dy[p] : 0;
        sum += dx[p];
      }
      sums[plane] = sum;
    }
  });
  for (int64_t c = 0; c < channels; ++c) {
    double sum = 0;
    for (int64_t image = 0; image < images; ++image) sum += sums[image * channels + c];
    dbias[c] = sum;
  }
  return 0;
}
