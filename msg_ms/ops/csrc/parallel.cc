#include "parallel.h"

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace msg_ms {
namespace {

// How long a thread that has nothing to do looks out for the next loop before it sleeps: kernels follow each other within
// this, and to wake a thread takes as long as many of their loops do.
constexpr auto kLookOut = std::chrono::microseconds(100);

inline void rest() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Looks until done() or kLookOut has passed.
template <typename Done>
bool look_out(const Done &done) {
  const auto end = std::chrono::steady_clock::now() + kLookOut;
  do {
    for (int i = 0; i < 64; ++i) {
      if (done()) return true;
      rest();
    }
  } while (std::chrono::steady_clock::now() < end);
  return done();
}

// A thread that does one part of a loop at a time.
class Worker {
 public:
  explicit Worker(int number) : number_(number) { std::thread([this] { serve(); }).detach(); }

  void give(const std::function<void(int)> &part) {
    part_.store(&part);
    if (asleep_.load()) {
      { const std::lock_guard<std::mutex> lock(mutex_); }
      wake_.notify_one();
    }
  }

  void wait() const {
    const auto done = [&] { return part_.load() == nullptr; };
    while (!look_out(done)) std::this_thread::yield();
  }

 private:
  void serve() {
    const auto asked = [&] { return part_.load() != nullptr; };
    for (;;) {
      if (!look_out(asked)) {
        std::unique_lock<std::mutex> lock(mutex_);
        asleep_.store(true);
        wake_.wait(lock, asked);
        asleep_.store(false);
      }
      (*part_.load())(number_);
      part_.store(nullptr);
    }
  }

  const int number_;
  std::atomic<const std::function<void(int)> *> part_{nullptr};
  std::atomic<bool> asleep_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
};

// The library's own threads, which one loop at a time has, on whichever of the framework's threads its kernel runs.
class Pool {
 public:
  Pool() : process_(getpid()) {
    for (int i = 1; i < threads(); ++i) workers_.push_back(std::make_unique<Worker>(i));
  }

  // False where the threads are busy with another loop, or stayed behind in the process that this one was forked from.
  bool run(int parts, const std::function<void(int)> &part) {
    if (getpid() != process_ || !free_.try_lock()) return false;
    const std::lock_guard<std::mutex> held(free_, std::adopt_lock);
    for (int i = 1; i < parts; ++i) workers_[i - 1]->give(part);
    part(0);
    for (int i = 1; i < parts; ++i) workers_[i - 1]->wait();
    return true;
  }

 private:
  const pid_t process_;
  std::mutex free_;
  std::vector<std::unique_ptr<Worker>> workers_;
};

}  // namespace

int threads() {
  static const int count = [] {
    const char *wanted = std::getenv("MSG_MS_THREADS");
    const int n = wanted == nullptr ? 0 : std::atoi(wanted);
    return n > 0 ? n : static_cast<int>(std::thread::hardware_concurrency());
  }();
  return count;
}

void run_parts(int parts, const std::function<void(int)> &part) {
  static Pool &pool = *new Pool;  // never destroyed: its threads may outlive the end of main
  if (pool.run(parts, part)) return;
  for (int i = 0; i < parts; ++i) part(i);
}

}  // namespace msg_ms
