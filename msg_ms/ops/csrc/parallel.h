// Loops shared among threads: MindSpore's own where they can be reached, so that two pools don't fight for the cores.
#pragma once

#include <cstdint>
#include <functional>

namespace msg_ms {

// How many parts a loop is cut into: OMP_NUM_THREADS, or as many as there are cores.
int threads();

// Runs part(0) ... part(parts - 1), in any order and at the same time.
void run_parts(int parts, const std::function<void(int)> &part);

// Cuts 0 .. n into at most threads() ranges of at least `least` and runs body(part, begin, end) on each.
template <typename Body>
void parallel_for(int64_t n, int64_t least, const Body &body) {
  int64_t parts = n / (least > 1 ? least : 1);
  parts = parts > threads() ? threads() : parts;
  if (parts <= 1) {
    if (n > 0) body(0, int64_t{0}, n);
    return;
  }
  run_parts(static_cast<int>(parts), [&](int part) { body(part, n * part / parts, n * (part + 1) / parts); });
}

}  // namespace msg_ms
