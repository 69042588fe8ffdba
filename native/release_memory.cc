// What TensorFlow's libraries and the allocator hold of the machine's memory and do not need: libraries of 850 MB touch a third of themselves while
// they are loaded, for once; what compiling has freed stays with the allocator.
#include "release_memory.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#ifdef __linux__
#include <malloc.h>
#endif

#include <atomic>
#include <thread>

#include "drop_pages.h"
#include "exports.h"

namespace {

// Takes pages of TensorFlow's libraries that are as they are in their files out of this process; who touches one again gets it from the system's
// memory of the file. Parts that were written to while loading have pages of their own and stay.
void DropLibraryPages() {
#ifdef __linux__
  FILE* maps = fopen("/proc/self/smaps", "re");
  if (!maps) return;
  unsigned long from = 0, to = 0, own = 1, kilobytes = 0;
  bool library = false;
  char line[4352], access[5] = {};
  while (fgets(line, sizeof(line), maps)) {
    unsigned long a, b;
    char rights[5];
    if (sscanf(line, "%lx-%lx %4s ", &a, &b, rights) == 3) {
      from = a, to = b, own = 0;
      memcpy(access, rights, sizeof(access));
      library = strstr(line, "/libtensorflow") != nullptr;
    } else if (sscanf(line, "Anonymous: %lu", &kilobytes) == 1 || sscanf(line, "Swap: %lu", &kilobytes) == 1) {
      own += kilobytes;
    } else if (strncmp(line, "VmFlags:", 8) == 0) {  // the last line of each
      if (library && own == 0 && (strcmp(access, "r-xp") == 0 || strcmp(access, "r--p") == 0))
        DropPages(reinterpret_cast<void*>(from), to - from);
      library = false;
    }
  }
  fclose(maps);
#endif
}

std::atomic<bool> busy{false};

// releaseMemory(): gives both back, in a thread of its own.
napi_value ReleaseMemory(napi_env, napi_callback_info) {
  if (!busy.exchange(true)) {
    std::thread([] {
#ifdef __GLIBC__
      malloc_trim(0);
#endif
      DropLibraryPages();
      busy = false;
    }).detach();
  }
  return nullptr;
}

}  // namespace

void ExportReleaseMemory(napi_env env, napi_value exports) {
  Export(env, exports, "releaseMemory", ReleaseMemory);
}
