// Kernels of the batch normalization with the statistics of some samples, and its gradient; see masked_batch_norm.py.
//
// A thread has a range of channels, so results do not depend on the number of threads. Sums over samples are in double
// precision.

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/kernel.h"

namespace msg_ms {
namespace {

constexpr float kBatchEpsilon = 1e-5f;  // PyTorch's

// Maps (samples, channels, height, width), and the weight of each sample in the statistics.
struct Batch {
  int64_t samples, channels, pixels;
  const float *weights;

  Batch(const int64_t *shape, const float *weights)
      : samples(shape[0]), channels(shape[1]), pixels(shape[2] * shape[3]), weights(weights) {}

  // The number of values that the statistics are means of, at least 1.
  double values() const {
    double total = 0;
    for (int64_t n = 0; n < samples; ++n) total += weights[n];
    return std::max(total * pixels, 1.0);
  }

  // Call body(sample, channel, offset of the plane) for the planes of channels [begin, end), as they are in memory.
  template <typename Body>
  void for_each_plane(int64_t begin, int64_t end, const Body &body) const {
    for (int64_t n = 0; n < samples; ++n) {
      for (int64_t c = begin; c < end; ++c) body(n, c, (n * channels + c) * pixels);
    }
  }

  // Call body(begin, end) for ranges of channels, on all threads.
  template <typename Body>
  void for_channels(const Body &body) const {
    parallel_for(channels, kMinElements / (samples * pixels + 1) + 1,
                 [&](int, int64_t begin, int64_t end) { body(begin, end); });
  }
};

}  // namespace
}  // namespace msg_ms

// x (N, C, H, W), weights (N,), gamma, beta (C,), settings (ReLU,) -> y (N, C, H, W), mean, variance (C,)
MSG_MS_KERNEL(masked_batch_norm) {
  using namespace msg_ms;
  const float *x = data(params, 0), *gamma = data(params, 2), *beta = data(params, 3);
  const bool relu = data(params, 4)[0] != 0;
  float *y = data(params, 5), *mean = data(params, 6), *variance = data(params, 7);
  const Batch batch(shapes[0], data(params, 1));
  const double values = batch.values();
  batch.for_channels([&](int64_t begin, int64_t end) {
    std::vector<double> sums(end - begin);
    batch.for_each_plane(begin, end, [&](int64_t n, int64_t c, int64_t at) {
      float sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t p = 0; p < batch.pixels; ++p) sum += x[at + p];
      sums[c - begin] += batch.weights[n] * sum;
    });
    for (int64_t c = begin; c < end; ++c) mean[c] = sums[c - begin] / values;
    std::fill(sums.begin(), sums.end(), 0.0);
    batch.for_each_plane(begin, end, [&](int64_t n, int64_t c, int64_t at) {
      float sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t p = 0; p < batch.pixels; ++p) sum += (x[at + p] - mean[c]) * (x[at + p] - mean[c]);
      sums[c - begin] += batch.weights[n] * sum;
    });
    for (int64_t c = begin; c < end; ++c) variance[c] = sums[c - begin] / values;
    batch.for_each_plane(begin, end, [&](int64_t, int64_t c, int64_t at) {
      const float factor = gamma[c] / std::sqrt(variance[c] + kBatchEpsilon);
      for (int64_t p = 0; p < batch.pixels; ++p) {
        const float value = (x[at + p] - mean[c]) * factor + beta[c];
        y[at + p] = relu && value < 0 ? 0 : value;
      }
    });
  });
  return 0;
}

// x, weights, gamma, y (N, C, H, W), mean, variance, gradient of y, settings -> gradients of x, gamma, beta
MSG_MS_KERNEL(masked_batch_norm_grad) {
  using namespace msg_ms;
  const float *x = data(params, 0), *gamma = data(params, 2), *y = data(params, 3), *mean = data(params, 4);
  const float *variance = data(params, 5), *dy = data(params, 6);
  const bool relu = data(params, 7)[0] != 0;
  float *dx = data(params, 8), *dgamma = data(params, 9), *dbeta = data(params, 10);
  const Batch batch(shapes[0], data(params, 1));
  const double values = batch.values();
  batch.for_channels([&](int64_t begin, int64_t end) {
    std::vector<double> sums(end - begin), products(end - begin);
    batch.for_each_plane(begin, end, [&](int64_t, int64_t c, int64_t at) {
      float sum = 0, product = 0;
#pragma omp simd reduction(+ : sum, product)
      for (int64_t p = 0; p < batch.pixels; ++p) {
        const float d = relu && !(y[at + p] > 0) ? 0 : dy[at + p];
        sum += d;
        product += d * (x[at + p] - mean[c]);
      }
      sums[c - begin] += sum;
      products[c - begin] += product;
    });
    for (int64_t c = begin; c < end; ++c) {
      const float inverse_std = 1.0f / std::sqrt(variance[c] + kBatchEpsilon);
      dbeta[c] = sums[c - begin];
      dgamma[c] = products[c - begin] * inverse_std;
    }
    batch.for_each_plane(begin, end, [&](int64_t n, int64_t c, int64_t at) {
      const float inverse_std = 1.0f / std::sqrt(variance[c] + kBatchEpsilon), factor = gamma[c] * inverse_std;
      const float share = batch.weights[n] / values, by_sum = share * dbeta[c],
                  by_product = share * dgamma[c] * inverse_std;
      for (int64_t p = 0; p < batch.pixels; ++p) {
        const float d = relu && !(y[at + p] > 0) ? 0 : dy[at + p];
        dx[at + p] = factor * (d - by_sum - (x[at + p] - mean[c]) * by_product);
      }
    });
  });
  return 0;
}
