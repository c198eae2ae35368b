// Loops over the elements of any number of tensors, as if they were one.
#pragma once

#include <algorithm>
#include <vector>

#include "kernel.h"

namespace msg_ms {

// Cuts all elements of the first `tensors` tensors into ranges for the threads, each of at least `least` elements, and
// calls body(part, tensor, begin, end) for what lies in one tensor.
template <typename Body>
void for_each_piece(int tensors, int64_t **shapes, const int *dims, int64_t least, const Body &body) {
  std::vector<int64_t> first(tensors + 1, 0);
  for (int i = 0; i < tensors; ++i) first[i + 1] = first[i] + size(shapes[i], dims[i]);
  parallel_for(first[tensors], least, [&](int part, int64_t begin, int64_t end) {
    for (int i = 0; i < tensors; ++i) {
      const int64_t from = std::max(begin, first[i]), to = std::min(end, first[i + 1]);
      if (from < to) body(part, i, from - first[i], to - first[i]);
    }
  });
}

}  // namespace msg_ms
