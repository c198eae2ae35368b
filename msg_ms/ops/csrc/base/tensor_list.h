// Parallel loops over the elements of any number of tensors, as if these were one long array.
#pragma once

#include <algorithm>
#include <vector>

#include "base/kernel.h"

namespace msg_ms {

// Split the elements of the first `tensors` tensors into one range per thread, each of at least `grain` elements, and
// call body(thread, tensor, begin, end) for the piece of a range that falls into one tensor.
template <typename Body>
void parallel_for_elements(int tensors, int64_t **shapes, const int *dims, int64_t grain, const Body &body) {
  std::vector<int64_t> offset(tensors + 1, 0);
  for (int i = 0; i < tensors; ++i) offset[i + 1] = offset[i] + size(shapes[i], dims[i]);
  parallel_for(offset[tensors], grain, [&](int thread, int64_t begin, int64_t end) {
    for (int i = 0; i < tensors; ++i) {
      const int64_t from = std::max(begin, offset[i]), to = std::min(end, offset[i + 1]);
      if (from < to) body(thread, i, from - offset[i], to - offset[i]);
    }
  });
}

}  // namespace msg_ms
