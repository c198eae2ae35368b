#include "parallel.h"

#include <dlfcn.h>

#include <cstdlib>
#include <thread>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace msg_ms {
namespace {

// mindspore::ThreadPool::ParallelLaunch, a member function: the pool comes first.
using Function = std::function<int(void *, int, float, float)>;
using Launch = int (*)(void *pool, const Function &function, void *content, int tasks);
using GetPool = void *(*)();

struct MindSporePool {
  Launch launch = nullptr;
  void *pool = nullptr;

  MindSporePool() {
    void *library = dlopen("libmindspore_ops_cpu.so", RTLD_LAZY | RTLD_NOLOAD);
    if (library == nullptr) return;
    const auto get = reinterpret_cast<GetPool>(dlsym(library, "_ZN9mindspore6kernel26GetActorMgrInnerThreadPoolEv"));
    launch = reinterpret_cast<Launch>(
      dlsym(library, "_ZN9mindspore10ThreadPool14ParallelLaunchERKSt8functionIFiPviffEES2_i"));
    if (get != nullptr && launch != nullptr) pool = get();
  }
};

}  // namespace

int threads() {
  static const int count = [] {
    const char *wanted = std::getenv("OMP_NUM_THREADS");
    const int n = wanted == nullptr ? 0 : std::atoi(wanted);
    return n > 0 ? n : static_cast<int>(std::thread::hardware_concurrency());
  }();
  return count;
}

void run_parts(int parts, const std::function<void(int)> &part) {
  static const MindSporePool mindspore;
  if (mindspore.pool != nullptr) {
    mindspore.launch(
      mindspore.pool, [&](void *, int index, float, float) { return part(index), 0; }, nullptr, parts);
    return;
  }
#pragma omp parallel for schedule(static, 1) num_threads(parts)
  for (int i = 0; i < parts; ++i) part(i);
}

}  // namespace msg_ms
