// How TensorFlow takes and gives back its large blocks of memory: tensors, and what a compiled function works in, hundreds of megabytes that come
// and go with each run. These functions stand in for TensorFlow's own of the same names, and are else what those are: the dynamic linker finds the
// names of a library that is open to all before those of libtensorflow itself.
//
// What functions work in is asked for in pages of 2 MB, which come at a 512th of the number of interruptions, and go as quickly; but not what
// JavaScript's thread makes, weights above all: to find such pages takes a start longer, and host_kernels.cc moves weights to them afterwards. free() of it is one munmap(), and
// JavaScript's thread stands still meanwhile as soon as it maps or protects memory (drop_pages.h): so the pages of a block go in pieces first. What
// JavaScript's own thread frees, in its garbage collections above all, goes on a thread that does nothing else.
#include "large_blocks.h"

#include <dlfcn.h>
#include <stdlib.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#include "drop_pages.h"

#ifdef __GLIBC__

namespace {

// malloc() has a mapping for each block of so many bytes, at the latest.
constexpr size_t kLarge = 32 << 20;

// Pages that a processor's table has one entry for.
constexpr size_t kLargePage = 2 << 20;

// Bytes that may wait to be given back. Beyond that whoever frees a block gives it back: memory is wanted faster than it goes.
constexpr size_t kWaiting = 256 << 20;

std::atomic<int64_t> dropped{0};

// Where the system has no such pages, or none left, nothing changes.
void AskForLargePages(void* data, size_t bytes) {
#ifdef MADV_HUGEPAGE
  madvise(data, bytes / kLargePage * kLargePage, MADV_HUGEPAGE);
#endif
}

void GiveBack(void* data, size_t bytes) {
  DropPages(data, bytes);
  dropped++;
  free(data);
}

// A thread that gives back what others must not wait for. It is never ended: the end of a process takes it along, wherever it is.
class Giver {
 public:
  // Whether it takes a block.
  bool Take(void* data, size_t bytes) {
    const std::lock_guard<std::mutex> lock(lock_);
    if (waiting_ + bytes > kWaiting) return false;
    if (!begun_) {
      try {
        std::thread([this] { Work(); }).detach();
      } catch (...) {
        return false;
      }
      begun_ = true;
    }
    blocks_.push_back({data, bytes});
    waiting_ += bytes;
    wake_.notify_one();
    return true;
  }

 private:
  struct Block {
    void* data;
    size_t bytes;
  };

  void Work() {
    for (std::vector<Block> taken;; taken.clear()) {
      {
        std::unique_lock<std::mutex> lock(lock_);
        wake_.wait(lock, [this] { return !blocks_.empty(); });
        taken.swap(blocks_);
      }
      for (const Block& block : taken) {
        GiveBack(block.data, block.bytes);
        const std::lock_guard<std::mutex> lock(lock_);
        waiting_ -= block.bytes;
      }
    }
  }

  std::mutex lock_;
  std::condition_variable wake_;
  std::vector<Block> blocks_;
  size_t waiting_ = 0;
  bool begun_ = false;
};

Giver& giver = *new Giver;

// Whether this is a thread of JavaScript.
thread_local bool javascript = false;

}  // namespace

namespace tsl {
namespace port {

__attribute__((visibility("default"))) void* AlignedMalloc(size_t bytes, std::align_val_t alignment) {
  size_t align = static_cast<size_t>(alignment);
  if (align < sizeof(void*)) return malloc(bytes);
  const bool large = bytes >= kLarge && !javascript;
  if (large && align < kLargePage) align = kLargePage;
  void* data = nullptr;
  if (posix_memalign(&data, align, bytes) != 0) return nullptr;
  if (large) AskForLargePages(data, bytes);
  return data;
}

__attribute__((visibility("default"))) void AlignedFree(void* data) {
  const size_t bytes = data ? malloc_usable_size(data) : 0;
  if (bytes < kLarge) return free(data);
  if (!javascript || !giver.Take(data, bytes)) GiveBack(data, bytes);
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
  javascript = true;
  Dl_info info;
  if (dladdr(reinterpret_cast<void*>(&OpenToAll), &info) && info.dli_fname)
    dlopen(info.dli_fname, RTLD_LAZY | RTLD_GLOBAL | RTLD_NODELETE | RTLD_NOLOAD);
#endif
}
