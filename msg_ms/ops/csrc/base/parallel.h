// Parallel loops on a thread pool of this library's own.
//
// Guarantee: which iterations a thread runs depends only on the loop's length, the grain and num_threads(), so results
// are the same bits from run to run.
#pragma once

#include <cstdint>
#include <functional>

namespace msg_ms {

// The most threads that a loop is split among: MSG_MS_THREADS (set by backend.py), else the number of cores.
int num_threads();

// Run body(0) ... body(count - 1) concurrently, in any order; count is at most num_threads().
void run_on_threads(int count, const std::function<void(int)> &body);

// The index of this thread inside parallel_for_serial, where nested loops run serially; -1 elsewhere.
inline int &serial_thread() {
  static thread_local int index = -1;
  return index;
}

// Split 0 .. n into at most num_threads() ranges of at least `grain` and run body(thread, begin, end) on each.
template <typename Body>
void parallel_for(int64_t n, int64_t grain, const Body &body) {
  int64_t count = n / (grain > 1 ? grain : 1);
  count = count > num_threads() ? num_threads() : count;
  if (count <= 1 || serial_thread() >= 0) {
    if (n > 0) body(serial_thread() >= 0 ? serial_thread() : 0, int64_t{0}, n);
    return;
  }
  run_on_threads(static_cast<int>(count),
                 [&](int thread) { body(thread, n * thread / count, n * (thread + 1) / count); });
}

// Split 0 .. n among all threads and run body(begin, end) on each range; loops inside the body run serially.
template <typename Body>
void parallel_for_serial(int64_t n, const Body &body) {
  parallel_for(n, 1, [&](int thread, int64_t begin, int64_t end) {
    serial_thread() = thread;
    body(begin, end);
    serial_thread() = -1;
  });
}

}  // namespace msg_ms
