// Kernels of the 1x1 convolution on channels-first maps, and its gradients; see conv.py. Each image is one product of
// matrices: outputs x inputs times inputs x pixels.

#include "base/kernel.h"
#include "gemm/gemm.h"

namespace msg_ms {
namespace {

// Call body(image) for all images: each on one thread if there are enough images, else one after the other on all
// threads.
template <typename Body>
void for_each_image(int64_t images, const Body &body) {
  const auto run = [&](int64_t begin, int64_t end) {
    for (int64_t image = begin; image < end; ++image) body(image);
  };
  constexpr int64_t kManyImages = 4;  // per thread
  images >= kManyImages *num_threads() ? parallel_for_serial(images, run) : run(0, images);
}

void convolve(void **params, int64_t **shapes, bool relu) {
  const int64_t inputs = shapes[0][1], pixels = shapes[0][2] * shapes[0][3], outputs = shapes[1][0];
  const float *x = data(params, 0), *weight = data(params, 1), *bias = data(params, 2);
  float *out = data(params, 4);
  for_each_image(shapes[0][0], [&](int64_t image) {
    float *y = out + image * outputs * pixels;
    gemm(outputs, pixels, inputs, matrix(weight, inputs), matrix(x + image * inputs * pixels, pixels), y,
         [=](int, int64_t row, int64_t rows, int64_t column, int64_t columns) {
           for (int64_t i = row; i < row + rows; ++i) {
             float *to = y + i * pixels;
#pragma omp simd
             for (int64_t p = column; p < column + columns; ++p) {
               const float value = to[p] + bias[i];
               to[p] = relu && value < 0.0f ? 0.0f : value;  // a NaN stays
             }
           }
         });
  });
}

}  // namespace
}  // namespace msg_ms

// x (B, C, H, W), weight (O, C, 1, 1), bias (O,), settings (unused) -> (B, O, H, W)
MSG_MS_KERNEL(conv1x1) {
  msg_ms::convolve(params, shapes, false);
  return 0;
}

// The same with a ReLU.
MSG_MS_KERNEL(conv1x1_relu) {
  msg_ms::convolve(params, shapes, true);
  return 0;
}

// weight (O, C, 1, 1), gradient of the output (B, O, H, W) -> gradient of x (B, C, H, W)
MSG_MS_KERNEL(conv1x1_grad_x) {
  using namespace msg_ms;
  const int64_t outputs = shapes[0][0], inputs = shapes[0][1], pixels = shapes[1][2] * shapes[1][3];
  const float *weight = data(params, 0), *dout = data(params, 1);
  float *dx = data(params, 2);
  for_each_image(shapes[1][0], [&](int64_t image) {
    gemm(inputs, pixels, outputs, transposed(weight, inputs), matrix(dout + image * outputs * pixels, pixels),
         dx + image * inputs * pixels);
  });
  return 0;
}

// x (B, C, H, W), gradient of the output (B, O, H, W) -> gradient of the weight (O, C, 1, 1)
MSG_MS_KERNEL(conv1x1_grad_weight) {
  using namespace msg_ms;
  const int64_t inputs = shapes[0][1], pixels = shapes[0][2] * shapes[0][3], outputs = shapes[1][1];
  const float *x = data(params, 0), *dout = data(params, 1);
  for (int64_t image = 0; image < shapes[0][0]; ++image) {
    gemm(outputs, inputs, pixels, matrix(dout + image * outputs * pixels, pixels),
         transposed(x + image * inputs * pixels, pixels), data(params, 2), nullptr, image > 0);
  }
  return 0;
}
