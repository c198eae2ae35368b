// Run kernels for another process, see OtherProcess in tests/support/kernels.py. Each call arrives on standard input as
// a name and arrays; all arrays return on standard output.

#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

template <typename T>
bool read(T *to, size_t n) {
  return std::fread(to, sizeof(T), n, stdin) == n;
}

template <typename T>
T read() {
  T value;
  if (!read(&value, 1)) std::exit(0);
  return value;
}

}  // namespace

int main() {
  using Kernel = int(int, void **, int *, int64_t **, const char **, void *, void *);
  for (;;) {
    std::string name(read<int32_t>(), ' ');
    read(&name[0], name.size());
    const int count = read<int32_t>();
    std::vector<int> dims(count);
    std::vector<std::vector<int64_t>> shapes(count);
    std::vector<std::vector<float>> arrays(count);
    std::vector<void *> params(count);
    std::vector<int64_t *> shape(count);
    for (int i = 0; i < count; ++i) {
      dims[i] = read<int32_t>();
      shapes[i].resize(dims[i]);
      read(shapes[i].data(), dims[i]);
      int64_t size = 1;
      for (const int64_t n : shapes[i]) size *= n;
      arrays[i].resize(size);
      read(arrays[i].data(), size);
      params[i] = arrays[i].data();
      shape[i] = shapes[i].data();
    }
    auto *kernel = reinterpret_cast<Kernel *>(dlsym(RTLD_DEFAULT, name.c_str()));
    if (kernel == nullptr) return 1;
    if (kernel(count, params.data(), dims.data(), shape.data(), nullptr, nullptr, nullptr) != 0) return 2;
    for (const auto &array : arrays) std::fwrite(array.data(), sizeof(float), array.size(), stdout);
    std::fflush(stdout);
  }
}
