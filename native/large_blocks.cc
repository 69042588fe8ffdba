// How TensorFlow gives its large blocks of memory back: tensors, and what a compiled function works in, hundreds of megabytes that come and go
// with each run. free() of such a block is one munmap(), and JavaScript's thread stands still meanwhile as soon as it maps or protects memory
// (drop_pages.h). So the pages of a block go in pieces first. These functions stand in for TensorFlow's own of the same names, and are else
// what those are: the dynamic linker finds the names of a library that is open to all before those of libtensorflow itself.
#include "large_blocks.h"

#include <dlfcn.h>
#include <stdlib.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <atomic>
#include <new>

#include "drop_pages.h"

#ifdef __GLIBC__

namespace {

// malloc() has a mapping for each block of so many bytes, at the latest.
constexpr size_t kLarge = 32 << 20;

std::atomic<int64_t> dropped{0};

}  // namespace

namespace tsl {
namespace port {

__attribute__((visibility("default"))) void AlignedFree(void* data) {
  if (data) {
    const size_t bytes = malloc_usable_size(data);
    if (bytes >= kLarge) {
      DropPages(data, bytes);
      dropped++;
    }
  }
  free(data);
}

__attribute__((visibility("default"))) void AlignedSizedFree(void* data, size_t, std::align_val_t) { AlignedFree(data); }

}  // namespace port
}  // namespace tsl

#endif

int64_t LargeBlocksDropped() {
#ifdef __GLIBC__
  return dropped;
#else
  return 0;
#endif
}

void OpenToAll() {
#ifdef __GLIBC__
  Dl_info info;
  if (dladdr(reinterpret_cast<void*>(&OpenToAll), &info) && info.dli_fname)
    dlopen(info.dli_fname, RTLD_LAZY | RTLD_GLOBAL | RTLD_NODELETE | RTLD_NOLOAD);
#endif
}
