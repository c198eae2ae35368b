// The thread pool behind parallel.h.
//
// Kernels follow each other within microseconds, and waking a thread takes as long as many of their loops. So workers
// spin for 100 us. Then they offer their core to other threads at each look for work, and sleep after 1 ms: between two
// kernels or two calls of a model the framework needs some 100 us.

#include "base/parallel.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace msg_ms {
namespace {

constexpr auto kSpinTime = std::chrono::microseconds(100), kYieldTime = std::chrono::microseconds(900);

inline void cpu_pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Spin until done() or until kSpinTime has passed; return whether done() is true.
template <typename Done>
bool spin_until(const Done &done) {
  const auto end = std::chrono::steady_clock::now() + kSpinTime;
  do {
    for (int i = 0; i < 64; ++i) {
      if (done()) return true;
      cpu_pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return done();
}

// Continue for kYieldTime, and let other threads run.
template <typename Done>
bool yield_until(const Done &done) {
  const auto end = std::chrono::steady_clock::now() + kYieldTime;
  while (!done() && std::chrono::steady_clock::now() < end) std::this_thread::yield();
  return done();
}

// A thread that runs one task at a time.
class Worker {
 public:
  explicit Worker(int index) : index_(index) {
    std::thread([this] { run(); }).detach();
  }

  void start(const std::function<void(int)> &task) {
    task_.store(&task);
    if (asleep_.load()) {
      {
        const std::lock_guard<std::mutex> lock(mutex_);
      }
      wake_.notify_one();
    }
  }

  void wait() const {
    const auto finished = [&] { return task_.load() == nullptr; };
    while (!spin_until(finished)) std::this_thread::yield();
  }

 private:
  void run() {
    const auto has_task = [&] { return task_.load() != nullptr; };
    for (;;) {
      if (!spin_until(has_task) && !yield_until(has_task)) {
        std::unique_lock<std::mutex> lock(mutex_);
        asleep_.store(true);
        wake_.wait(lock, has_task);
        asleep_.store(false);
      }
      (*task_.load())(index_);
      task_.store(nullptr);
    }
  }

  const int index_;
  std::atomic<const std::function<void(int)> *> task_{nullptr};
  std::atomic<bool> asleep_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
};

// The workers, used by one loop at a time, whichever of the framework's threads runs its kernel.
class Pool {
 public:
  Pool() : process_(getpid()) {
    try {
      for (int i = 1; i < num_threads(); ++i) workers_.push_back(std::make_unique<Worker>(i));
    } catch (const std::exception &) {
      // A limit on processes or memory: work with the threads that there are.
    }
  }

  // Return false if the workers are busy with another loop, or belong to the process that this one was forked from.
  bool run(int count, const std::function<void(int)> &body) {
    if (getpid() != process_ || !mutex_.try_lock()) return false;
    const std::lock_guard<std::mutex> held(mutex_, std::adopt_lock);
    const int threads = std::min(count, static_cast<int>(workers_.size()) + 1);
    for (int i = 1; i < threads; ++i) workers_[i - 1]->start(body);
    body(0);
    for (int i = threads; i < count; ++i) body(i);
    for (int i = 1; i < threads; ++i) workers_[i - 1]->wait();
    return true;
  }

 private:
  const pid_t process_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Worker>> workers_;
};

}  // namespace

int num_threads() {
  static const int count = [] {
    const char *requested = std::getenv("MSG_MS_THREADS");
    const int n = requested == nullptr ? 0 : std::atoi(requested);
    return n > 0 ? n : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  }();
  return count;
}

void run_on_threads(int count, const std::function<void(int)> &body) {
  static Pool &pool = *new Pool;  // never destroyed: its threads may outlive the end of main
  if (pool.run(count, body)) return;
  for (int i = 0; i < count; ++i) body(i);
}

}  // namespace msg_ms
