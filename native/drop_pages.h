// Gives pages of memory back to the system, some at a time.
#pragma once

#include <stddef.h>
#include <stdint.h>
#ifdef __linux__
#include <sys/mman.h>
#include <unistd.h>
#endif

// The system takes pages back under a lock that all threads of a process share, 15 to 40 ms for 100 MB in pages of 4 KB; whoever maps or protects
// memory meanwhile waits, JavaScript's garbage collector among them. Between pieces they have their turn.
constexpr size_t kPiece = 8 << 20;

// Takes the whole pages of [data, data + bytes) out of the process. What was there is lost, or comes from the file anew where that is mapped.
inline void DropPages(void* data, size_t bytes) {
#ifdef __linux__
  const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + page - 1) / page * page;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + bytes) / page * page;
  for (uintptr_t at = begin; at < end; at += kPiece)
    madvise(reinterpret_cast<void*>(at), end - at < kPiece ? end - at : kPiece, MADV_DONTNEED);
#endif
}
