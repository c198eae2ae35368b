// Kernel of the sum of squares over all elements of any number of tensors; see squared_norm.py.

#include <vector>

#include "base/tensor_list.h"

namespace msg_ms {
namespace {

// Sum in single precision inside a block and in double precision between blocks: there are millions of squares.
double sum_of_squares(const float *x, int64_t begin, int64_t end) {
  constexpr int64_t kBlock = 4096;
  double total = 0;
  for (int64_t i = begin; i < end; i += kBlock) {
    const int64_t block_end = i + kBlock < end ? i + kBlock : end;
    float block = 0;
#pragma omp simd reduction(+ : block)
    for (int64_t j = i; j < block_end; ++j) block += x[j] * x[j];
    total += block;
  }
  return total;
}

}  // namespace
}  // namespace msg_ms

// any number of tensors -> their squared norm (1,)
MSG_MS_KERNEL(squared_norm) {
  using namespace msg_ms;
  std::vector<double> partial_sums(num_threads(), 0);
  parallel_for_elements(count - 1, shapes, dims, 1 << 15, [&](int thread, int tensor, int64_t begin, int64_t end) {
    partial_sums[thread] += sum_of_squares(data(params, tensor), begin, end);
  });
  double total = 0;
  for (const double sum : partial_sums) total += sum;
  data(params, count - 1)[0] = static_cast<float>(total);
  return 0;
}
