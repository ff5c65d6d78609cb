// A disk below Python: preloaded (LD_PRELOAD), what reads and writes files of one folder is slow, or fails from a given
// call on, as on a dying disk. HDF5 and SQLite come through here too; what is mapped into memory does not.

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include <atomic>

namespace {

std::atomic<long> calls{0};

const char* setting(const char* name) {
  const char* value = getenv(name);
  return value ? value : "";
}

bool in_folder(int descriptor) {
  static const char* folder = setting("DISK_FOLDER");
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  const ssize_t length = readlink(link, path, sizeof path - 1);
  const size_t prefix = strlen(folder);
  return length > 0 && size_t(length) > prefix && prefix > 0 && !strncmp(path, folder, prefix) && path[prefix] == '/';
}

// Whether this call is to fail; errno is set then.
bool fails(int descriptor) {
  static const long from = atol(setting("DISK_FAILS_FROM"));
  static const long pause = atol(setting("DISK_MICROSECONDS"));
  const int before = errno;
  if (!in_folder(descriptor)) {
    errno = before;
    return false;
  }
  const long call = ++calls;
  if (pause) usleep(useconds_t(pause * (1 + call % 3)));
  errno = before;
  if (!from || call < from) return false;
  errno = EIO;
  return true;
}

struct Count {
  ~Count() {
    const char* file = setting("DISK_COUNT");
    if (!*file) return;
    if (FILE* out = fopen(file, "w")) {
      fprintf(out, "%ld\n", calls.load());
      fclose(out);
    }
  }
} count;

}  // namespace

#define SYSTEM(name) static auto const system_call = reinterpret_cast<decltype(&name)>(dlsym(RTLD_NEXT, #name))

extern "C" {

ssize_t read(int descriptor, void* to, size_t size) {
  SYSTEM(read);
  return fails(descriptor) ? -1 : system_call(descriptor, to, size);
}

ssize_t write(int descriptor, const void* from, size_t size) {
  SYSTEM(write);
  return fails(descriptor) ? -1 : system_call(descriptor, from, size);
}

ssize_t pread(int descriptor, void* to, size_t size, off_t offset) {
  SYSTEM(pread);
  return fails(descriptor) ? -1 : system_call(descriptor, to, size, offset);
}

ssize_t pwrite(int descriptor, const void* from, size_t size, off_t offset) {
  SYSTEM(pwrite);
  return fails(descriptor) ? -1 : system_call(descriptor, from, size, offset);
}

ssize_t pread64(int descriptor, void* to, size_t size, off64_t offset) {
  SYSTEM(pread64);
  return fails(descriptor) ? -1 : system_call(descriptor, to, size, offset);
}

ssize_t pwrite64(int descriptor, const void* from, size_t size, off64_t offset) {
  SYSTEM(pwrite64);
  return fails(descriptor) ? -1 : system_call(descriptor, from, size, offset);
}

int fsync(int descriptor) {
  SYSTEM(fsync);
  return fails(descriptor) ? -1 : system_call(descriptor);
}

int fdatasync(int descriptor) {
  SYSTEM(fdatasync);
  return fails(descriptor) ? -1 : system_call(descriptor);
}

}  // extern "C"
