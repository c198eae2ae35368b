// AdamW's step on any number of parameters, in place; see adamw.py.
//
// Weights, moments and gradients are read and written once: the step is bound by the memory.

#include <cmath>

#include "tensors.h"

namespace msg_ms {
namespace {

struct Step {
  float factor, fresh1, fresh2, rate, inverse_root, eps;  // the rate and the root are corrected for the bias

  void run(int64_t n, float kept, float *weights, float *moment1, float *moment2, const float *gradients) const {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      const float gradient = gradients[i] * factor;
      const float first = moment1[i] + fresh1 * (gradient - moment1[i]);
      const float second = moment2[i] + fresh2 * (gradient * gradient - moment2[i]);
      moment1[i] = first;
      moment2[i] = second;
      weights[i] = weights[i] * kept - rate * first / (std::sqrt(second) * inverse_root + eps);
    }
  }
};

}  // namespace
}  // namespace msg_ms

// weights, first moments, second moments, gradients (as many of each), a factor for the gradients, the learning rate, the
// number of this update, (1 - beta1, 1 - beta2, eps, every weight's decay) -> one number of no meaning
MSG_MS_KERNEL(adamw) {
  using namespace msg_ms;
  const int others = 4, tensors = (count - others - 1) / 4;
  const auto other = [&](int i) { return data(params, 4 * tensors + i); };
  const float *settings = other(3);
  const double rate = other(1)[0], updates = other(2)[0];
  const auto correction = [&](float fresh) { return 1 - std::pow(1 - static_cast<double>(fresh), updates); };
  const Step step{other(0)[0],
                  settings[0],
                  settings[1],
                  static_cast<float>(rate / correction(settings[0])),
                  static_cast<float>(1 / std::sqrt(correction(settings[1]))),
                  settings[2]};
  for_each_piece(tensors, shapes, dims, 1 << 14, [&](int, int tensor, int64_t begin, int64_t end) {
    const auto from = [&](int which) { return data(params, which * tensors + tensor) + begin; };
    const double kept = 1 - rate * settings[3 + tensor];
    step.run(end - begin, static_cast<float>(kept), from(0), from(1), from(2), from(3));
  });
  data(params, count - 1)[0] = 0;
  return 0;
}
