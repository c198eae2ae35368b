// Kernel of the AdamW step on any number of parameters, in place; see adamw.py.
//
// The step is memory-bound, so parameters, moments and gradients are read and written once.

#include <cmath>

#include "base/tensor_list.h"

namespace msg_ms {
namespace {

struct AdamW {
  float grad_scale, one_minus_beta1, one_minus_beta2;
  float lr, inverse_root;  // with bias correction: of the first moment, of the root of the second
  float eps;

  void step(int64_t n, float decay_factor, float *parameters, float *moment1, float *moment2,
            const float *gradients) const {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      const float gradient = gradients[i] * grad_scale;
      const float m1 = moment1[i] + one_minus_beta1 * (gradient - moment1[i]);
      const float m2 = moment2[i] + one_minus_beta2 * (gradient * gradient - moment2[i]);
      moment1[i] = m1;
      moment2[i] = m2;
      parameters[i] = parameters[i] * decay_factor - lr * m1 / (std::sqrt(m2) * inverse_root + eps);
    }
  }
};

// The inputs after the four lists of tensors, and the first settings.
enum Input { kGradScale, kLearningRate, kStep, kSettings, kScalars };
enum Setting { kOneMinusBeta1, kOneMinusBeta2, kEps, kWeightDecays };

}  // namespace
}  // namespace msg_ms

// parameters, first moments, second moments, gradients (n of each), grad_scale (1,), learning rate (1,), step from 1
// (1,), settings [1 - beta1, 1 - beta2, eps, weight decay of each parameter, factor of each parameter's learning rate]
// -> a placeholder (1,); parameters and moments change
MSG_MS_KERNEL(adamw) {
  using namespace msg_ms;
  const int tensors = (count - kScalars - 1) / 4;
  const auto input = [&](Input i) { return data(params, 4 * tensors + i); };
  const float *settings = input(kSettings);
  const double base_lr = *input(kLearningRate), step = *input(kStep);
  const auto correction = [&](float one_minus_beta) {
    return 1 - std::pow(1 - static_cast<double>(one_minus_beta), step);
  };
  const double correction1 = correction(settings[kOneMinusBeta1]);
  const float inverse_root = static_cast<float>(1 / std::sqrt(correction(settings[kOneMinusBeta2])));
  parallel_for_elements(tensors, shapes, dims, 1 << 14, [&](int, int tensor, int64_t begin, int64_t end) {
    const auto from = [&](int group) { return data(params, group * tensors + tensor) + begin; };
    const double lr = base_lr * settings[kWeightDecays + tensors + tensor];
    const double decay_factor = 1 - lr * settings[kWeightDecays + tensor];
    const AdamW adamw{*input(kGradScale),
                      settings[kOneMinusBeta1],
                      settings[kOneMinusBeta2],
                      static_cast<float>(lr / correction1),
                      inverse_root,
                      settings[kEps]};
    adamw.step(end - begin, static_cast<float>(decay_factor), from(0), from(1), from(2), from(3));
  });
  data(params, count - 1)[0] = 0;
  return 0;
}
