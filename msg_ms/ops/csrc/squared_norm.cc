// The sum of squares of all elements of any number of tensors; see squared_norm.py.

#include <vector>

#include "tensors.h"

namespace msg_ms {
namespace {

// In double precision from block to block: millions of squares are added up.
double squares(const float *x, int64_t begin, int64_t end) {
  constexpr int64_t kBlock = 4096;
  double total = 0;
  for (int64_t i = begin; i < end; i += kBlock) {
    const int64_t last = i + kBlock < end ? i + kBlock : end;
    float block = 0;
#pragma omp simd reduction(+ : block)
    for (int64_t j = i; j < last; ++j) block += x[j] * x[j];
    total += block;
  }
  return total;
}

}  // namespace
}  // namespace msg_ms

// any number of tensors -> (1,)
MSG_MS_KERNEL(squared_norm) {
  using namespace msg_ms;
  std::vector<double> sums(threads(), 0);
  for_each_piece(count - 1, shapes, dims, 1 << 15, [&](int part, int tensor, int64_t begin, int64_t end) {
    sums[part] += squares(data(params, tensor), begin, end);
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  data(params, count - 1)[0] = static_cast<float>(total);
  return 0;
}
