// Loops over chunks of rows, so that the intermediate results of a chunk stay in the second-level cache.
//
// With enough rows each thread works on chunks of its own (chunk-parallel); else the threads share the loops inside one
// chunk at a time.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/parallel.h"

namespace msg_ms {

// Whether there are enough rows for each thread to work on chunks of its own.
inline bool has_many_rows(int64_t rows) { return serial_thread() < 0 && rows >= num_threads() * int64_t{64}; }

// Return how many rows of `width` floats fit into the second-level cache, as a multiple of `unit` rows.
inline int64_t chunk_rows(int64_t width, int64_t unit) {
  constexpr int64_t kCacheFloats = 1 << 16, kMinRows = 100;
  return std::max<int64_t>(1, std::max(kMinRows, kCacheFloats / width) / unit) * unit;
}

// Call body(first, n) for chunks of n of the rows, from row `first`, in whole units: on all threads if
// `chunk_parallel`. Else call it on this thread with larger chunks, so that the loops inside are worth sharing.
template <typename Body>
void for_each_chunk(int64_t rows, int64_t width, int64_t unit, bool chunk_parallel, const Body &body) {
  constexpr int64_t kSharedFactor = 8;
  const int64_t target = chunk_rows(width, unit) * (chunk_parallel ? 1 : kSharedFactor);
  const auto run_range = [&](int64_t begin, int64_t end) {  // in units
    const int64_t chunks = std::max<int64_t>(1, ((end - begin) * unit + target / 2) / target);
    for (int64_t i = 0; i < chunks; ++i) {
      const int64_t from = begin + (end - begin) * i / chunks, to = begin + (end - begin) * (i + 1) / chunks;
      body(from * unit, (to - from) * unit);
    }
  };
  if (chunk_parallel) {
    parallel_for_serial(rows / unit, run_range);
  } else {
    run_range(0, rows / unit);
  }
}

}  // namespace msg_ms
