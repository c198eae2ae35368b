// Layer normalization of a branch's input, rounded to bfloat16.
#pragma once

#include "attention/branch.h"
#include "base/layer_norm.h"
#include "gemm/gemm_bf16.h"

namespace msg_ms {

// Normalize rows [first, first + n) of the branch's input and round them. Padded patches become zeros.
template <typename Arithmetic>
void normalize_and_round(const Branch &branch, int64_t first, int64_t n, const float *gamma, const float *beta,
                         const HalfRows &to) {
  const int64_t channels = branch.channels;
  parallel_for(n, branch.grain(), [&](int, int64_t begin, int64_t end) {
    for_rows_at_once(begin, end, [&](int64_t i, auto rows) {
      normalize_rows<rows>(branch.x + (first + i) * channels, channels, nullptr, gamma, beta, channels,
                           [&](int r, int64_t c, int64_t lanes, Vec value)
                             MSG_MS_INLINE { store_rounded<Arithmetic>(to.at(i + r, c), value, lanes); });
    });
    for (int64_t i = begin; i < end; ++i) {
      if (branch.padding && branch.padding.covers(first + i))
        std::memset(to.at(i, 0), 0, 2 * to.pairs * sizeof(BFloat16));
    }
  });
}

}  // namespace msg_ms
