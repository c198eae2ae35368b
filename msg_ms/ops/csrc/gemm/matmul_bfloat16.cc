// Kernels of the packing of weights in bfloat16, and of products with them; see packed.py.

#include <cmath>

#include "base/chunks.h"
#include "gemm/gemm_bfloat16.h"

namespace msg_ms {
namespace {

// x (rows, in) times a packed weight (out, in), transposed
void multiply_rows(void **params, int64_t **shapes) {
  const int64_t rows = shapes[0][0], in = shapes[0][1], out = shapes[2][1];
  const float *x = data(params, 0), *weight = data(params, 1);
  float *to = data(params, 2);
  for_each_chunk(rows, pair_count(in), 1, has_many_rows(rows), [&](int64_t first, int64_t n) {
    const BFloat16Rows rounded(n, in);
    parallel_for(n, kMinElements / in + 1, [&](int, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) round_row(x + (first + i) * in, in, rounded, i);
    });
    gemm_bfloat16(n, out, rounded, weight, {ProductTarget::kStore, nullptr, nullptr, to + first * out, nullptr, out});
  });
}

// Compute relu(x weight^T + bias), x (rows, in). The weight is packed in blocks of its inputs, `block` and a remainder,
// so that a panel of the product stays in the cache for all rows of a chunk.
void run_linear(void **params, int64_t **shapes) {
  const int64_t rows = shapes[0][0], in = shapes[0][1], out = shapes[4][1];
  const float *const x = data(params, 0), *const bias = data(params, 2);
  const int64_t block = std::llround(data(params, 3)[0]), columns = round_up(out, 64);
  float *const y = data(params, 4);
  for_each_chunk(rows, pair_count(block), 1, has_many_rows(rows), [&](int64_t first, int64_t n) {
    float *const to = y + first * out;
    const float *weight = data(params, 1);
    for (int64_t k = 0; k < in; k += block) {
      const int64_t depth = std::min(block, in - k);
      const BFloat16Rows rounded(n, depth);
      parallel_for(n, kMinElements / depth + 1, [&](int, int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) round_row(x + (first + i) * in + k, depth, rounded, i);
      });
      gemm_bfloat16(
        n, out, rounded, weight,
        {k == 0 ? ProductTarget::kStore : ProductTarget::kResidual, k == 0 ? bias : nullptr, nullptr, to, to, out});
      weight += pair_count(depth) * columns;
    }
    parallel_for(n * out, kMinElements, [&](int, int64_t begin, int64_t end) {
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) to[i] = to[i] < 0.0f ? 0.0f : to[i];  // a NaN stays
    });
  });
}

}  // namespace
}  // namespace msg_ms

// Return 1 if the bfloat16 kernels run on this processor.
extern "C" __attribute__((visibility("default"))) int supports_bfloat16() { return msg_ms::has_bfloat16(); }

// weight (out, in) -> weight packed in bfloat16, two numbers in a float (in / 2 rounded up * out rounded up to 64,)
MSG_MS_KERNEL(pack_weight_bfloat16) {
  using namespace msg_ms;
  std::memset(data(params, 1), 0, size(shapes[1], dims[1]) * sizeof(float));
  pack_bfloat16(shapes[0][1], shapes[0][0], data(params, 0), data(params, 1));
  return 0;
}

// x (rows, in), weight packed in bfloat16 -> (rows, out), float. Tests compare the product alone with this.
MSG_MS_KERNEL(matmul_bfloat16) {
  if (!msg_ms::has_bfloat16()) return 1;
  msg_ms::multiply_rows(params, shapes);
  return 0;
}

// x (rows, in), weight packed in bfloat16 in blocks of the inputs, bias (out,), settings (inputs of a block) -> relu(x
// weight^T + bias) (rows, out)
MSG_MS_KERNEL(linear_relu_bfloat16) {
  if (!msg_ms::has_bfloat16()) return 1;
  msg_ms::run_linear(params, shapes);
  return 0;
}
