// Loops shared among threads of this library's own.
#pragma once

#include <cstdint>
#include <functional>

namespace msg_ms {

// How many parts a loop is cut into: MSG_MS_THREADS (see backend.py), or as many as there are cores.
int threads();

// Runs part(0) ... part(parts - 1), in any order and at the same time.
void run_parts(int parts, const std::function<void(int)> &part);

// The part that this thread works on alone, so that loops inside are not cut again; -1 where it doesn't.
inline int &alone() {
  static thread_local int part = -1;
  return part;
}

// Cuts 0 .. n into at most threads() ranges of at least `least` and runs body(part, begin, end) on each.
template <typename Body>
void parallel_for(int64_t n, int64_t least, const Body &body) {
  int64_t parts = n / (least > 1 ? least : 1);
  parts = parts > threads() ? threads() : parts;
  if (parts <= 1 || alone() >= 0) {
    if (n > 0) body(alone() >= 0 ? alone() : 0, int64_t{0}, n);
    return;
  }
  run_parts(static_cast<int>(parts), [&](int part) { body(part, n * part / parts, n * (part + 1) / parts); });
}

// The same with body(begin, end), each range worked on by one thread alone.
template <typename Body>
void each_alone(int64_t n, const Body &body) {
  parallel_for(n, 1, [&](int part, int64_t begin, int64_t end) {
    alone() = part;
    body(begin, end);
    alone() = -1;
  });
}

}  // namespace msg_ms
