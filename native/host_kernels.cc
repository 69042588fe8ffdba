// The addon: makes kernels of our own for CPUs known to XLA (handlers.h), puts weights into large pages, and says what GPUs there are.
#include <dlfcn.h>
#include <node_api.h>
#ifdef __linux__
#include <malloc.h>
#include <sys/mman.h>
#endif

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <mutex>
#include <thread>
#include <vector>

#include "exports.h"
#include "gpu_info.h"
#include "host_calls.h"

#if defined(__x86_64__) && __has_include("xla/ffi/api/ffi.h")
#define HOST_KERNELS 1
#include "handlers.h"
#endif

namespace {

// Makes the kernels that this processor runs known to XLA, once; returns their names, without the prefix.
std::vector<std::string> RegisterKernels() {
  std::vector<std::string> names;
#ifdef HOST_KERNELS
  void* library = dlopen("libtensorflow_cc.so.2", RTLD_LAZY | RTLD_NOLOAD);
  if (!library || !__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return names;
  const auto get = reinterpret_cast<const XLA_FFI_Api* (*)()>(dlsym(library, "_ZN3xla3ffi12GetXlaFfiApiEv"));
  if (!get) return names;
  const auto put = [&](const std::string& name, XLA_FFI_Handler* handler) {
    if (!ffi::Ffi::RegisterStaticHandler(get(), "tfjs_mamba2_" + name, "Host", handler)) names.push_back(name);
  };
  put("int4_product_avx2", &Handler<Int4Product<&kForms256>>);
  put("dense_product_avx2", &Handler<DenseProduct<&kForms256>>);
  put("layer_step_avx2", &Handler<StepOfLayer<&kForms256, kState256>>);
  if (UsesAvx512()) put("dense_product_avx512", &Handler<DenseProduct<&kForms512>>);
  if (UsesVnni()) put("int4_product_vnni", &Handler<Int4Product<&kForms512>>);
  if (UsesAvx512() && UsesVnni()) put("layer_step_avx512", &Handler<StepOfLayer<&kForms512, kState512>>);
#endif
  return names;
}

napi_value Register(napi_env env, napi_callback_info) {
  static const std::vector<std::string> names = RegisterKernels(); // other threads of the process find them there
  napi_value array, text;
  napi_create_array(env, &array);
  for (uint32_t i = 0; i < names.size(); i++) {
    napi_create_string_utf8(env, names[i].data(), names[i].size(), &text);
    napi_set_element(env, array, i, text);
  }
  return array;
}

// Puts large blocks of memory, weights above all, into pages of 2 MB: reading them goes through far fewer entries of
// the processor's table of pages. Where the system knows no such pages nothing changes.
void CollapsePages(const std::atomic<bool>& stop) {
#ifdef __linux__
  constexpr uint64_t kPage = 2 << 20, kLeast = 32 << 20;
  constexpr int kCollapse = 25;  // MADV_COLLAPSE of Linux 6.1: now, and not when the system finds the time
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    unsigned long from, to, inode;
    char access[5], name[2] = {};
    if (std::sscanf(line.c_str(), "%lx-%lx %4s %*s %*s %lu %1s", &from, &to, access, &inode, name) < 4) continue;
    if (std::strcmp(access, "rw-p") != 0 || inode != 0 || name[0] != 0 || to - from < kLeast) continue;
    from = (from + kPage - 1) / kPage * kPage;
    to = to / kPage * kPage;
    if (madvise(reinterpret_cast<void*>(from), to - from, MADV_HUGEPAGE) != 0) continue;
    // those that are in use in whole; of memory given back meanwhile the calls fail
    std::vector<unsigned char> resident(kPage / 4096);
    for (uint64_t at = from; at < to && !stop; at += kPage)
      if (mincore(reinterpret_cast<void*>(at), kPage, resident.data()) == 0 &&
          std::all_of(resident.begin(), resident.end(), [](unsigned char c) { return c & 1; }))
        madvise(reinterpret_cast<void*>(at), kPage, kCollapse);
  }
#endif
}

// Memory is compacted in a thread of its own, as moving a gigabyte takes seconds. It ends with the thread of JavaScript that asked for it.
struct Compaction {
  std::mutex lock;
  std::thread thread;
  napi_env owner = nullptr;
  std::atomic<bool> busy{false}, stop{false};
};

// Never destroyed: at the end of a process it may still be asked for.
Compaction& compaction = *new Compaction;

// @param env whose compaction is ended; null for anybody's
void EndCompaction(void* env) {
  const std::lock_guard<std::mutex> lock(compaction.lock);
  if ((env && compaction.owner != env) || !compaction.thread.joinable()) return;
  compaction.stop = true;
  compaction.thread.join();
  compaction.owner = nullptr;
}

// Before an environment goes, or the process by process.exit(), which calls no hook of an environment: a thread that outlived it could
// run into what is destroyed then.
void EndCompactionWith(napi_env env) {
  static const int once = std::atexit([] { EndCompaction(nullptr); });
  (void)once;
  napi_add_env_cleanup_hook(env, EndCompaction, env);
}

// Gives back what tracing, compiling and loading have left over, and moves the rest to large pages.
napi_value CompactMemory(napi_env env, napi_callback_info) {
  const std::lock_guard<std::mutex> lock(compaction.lock);
  if (compaction.busy) return nullptr;
  if (compaction.thread.joinable()) compaction.thread.join();
  compaction.busy = true;
  compaction.stop = false;
  compaction.owner = env;
  compaction.thread = std::thread([] {
#ifdef __GLIBC__
    malloc_trim(0);
#endif
    CollapsePages(compaction.stop);
    compaction.busy = false;
  });
  return nullptr;
}

// Keeps this library loaded for as long as the process lives: XLA has pointers into it, and Node.js unloads an addon with the last
// environment that uses it, such as a worker thread's.
void PinLibrary() {
  Dl_info info;
  if (dladdr(reinterpret_cast<void*>(&PinLibrary), &info) && info.dli_fname)
    dlopen(info.dli_fname, RTLD_LAZY | RTLD_NODELETE | RTLD_NOLOAD);
}

// tensorFloat32(allowed): whether TensorFlow, and XLA by what it is told of each product, may round float32 to TF32. Returns whether
// TensorFlow has such a switch.
napi_value TensorFloat32(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value argument, result;
  bool allowed = true;
  napi_get_cb_info(env, info, &count, &argument, nullptr, nullptr);
  napi_get_value_bool(env, argument, &allowed);
  void* library = dlopen("libtensorflow_framework.so.2", RTLD_LAZY | RTLD_NOLOAD);
  const auto enable = reinterpret_cast<void (*)(bool)>(
      library ? dlsym(library, "_ZN3tsl32enable_tensor_float_32_executionEb") : nullptr);
  if (enable) enable(allowed);
  napi_get_boolean(env, enable != nullptr, &result);
  return result;
}

// [multiprocessors, compute capability]
napi_value Gpu(napi_env env, napi_callback_info) {
  const GpuInfo gpu = LeastGpu();
  napi_value pair, value;
  napi_create_array(env, &pair);
  napi_create_int32(env, gpu.multiprocessors, &value);
  napi_set_element(env, pair, 0, value);
  napi_create_int32(env, gpu.capability, &value);
  napi_set_element(env, pair, 1, value);
  return pair;
}

}  // namespace

NAPI_MODULE_INIT() {
  PinLibrary();
  EndCompactionWith(env);
  Export(env, exports, "register", Register);
  Export(env, exports, "compactMemory", CompactMemory);
  Export(env, exports, "gpu", Gpu);
  Export(env, exports, "tensorFloat32", TensorFloat32);
  ExportVersion(env, exports, kNativeVersion);
  return exports;
}
