// What kernels of our own on GPUs must know of the card, from the driver that TensorFlow has opened or will open.
#pragma once

#include <dlfcn.h>

#include <algorithm>

// Multiprocessors of the card that has fewest of those that this process sees: so many blocks of a kernel run at a time on any of them.
// 0 without a driver or card, or with one older than compute capability 7.0, which lacks instructions that those kernels use.
inline int Multiprocessors() {
  constexpr int kMultiprocessors = 16, kMajor = 75;  // CUdevice_attribute
  void* driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
  if (!driver) return 0;
  const auto init = reinterpret_cast<int (*)(unsigned)>(dlsym(driver, "cuInit"));
  const auto devices = reinterpret_cast<int (*)(int*)>(dlsym(driver, "cuDeviceGetCount"));
  const auto device = reinterpret_cast<int (*)(int*, int)>(dlsym(driver, "cuDeviceGet"));
  const auto attribute = reinterpret_cast<int (*)(int*, int, int)>(dlsym(driver, "cuDeviceGetAttribute"));
  int count = 0, least = 0;
  if (!init || !devices || !device || !attribute || init(0) != 0 || devices(&count) != 0) return 0;
  for (int i = 0; i < count; i++) {
    int handle, processors, major;
    if (device(&handle, i) != 0 || attribute(&processors, kMultiprocessors, handle) != 0) return 0;
    if (attribute(&major, kMajor, handle) != 0 || major < 7) return 0;
    least = i == 0 ? processors : std::min(least, processors);
  }
  return least;
}
