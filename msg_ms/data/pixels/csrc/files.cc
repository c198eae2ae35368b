// Sizes of files, without the interpreter.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bytes.h"

// Write the sizes of `count` files in a folder; `names` are their names, each with a zero behind it. A file that can't
// be examined has size -1.
EXPORT void file_sizes(const char *folder, const char *names, int64_t count, int64_t *sizes) {
  const int directory = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  for (int64_t i = 0; i < count; ++i, names += std::strlen(names) + 1) {
    struct stat status;
    sizes[i] = directory >= 0 && fstatat(directory, names, &status, 0) == 0 ? status.st_size : -1;
  }
  if (directory >= 0) close(directory);
}
