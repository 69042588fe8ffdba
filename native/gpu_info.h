// What kernels of our own on GPUs must know of the card, from the driver that TensorFlow has opened or will open.
#pragma once

#include <dlfcn.h>

#include <algorithm>

// The least that any of the cards that this process sees has. All 0 without a driver or card.
struct GpuInfo {
  int multiprocessors = 0;  // so many blocks of a kernel run at a time
  int capability = 0;       // compute capability: 80 for 8.0
};

inline GpuInfo LeastGpu() {
  constexpr int kMultiprocessors = 16, kMajor = 75, kMinor = 76;  // CUdevice_attribute
  GpuInfo least;
  void* driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
  if (!driver) return least;
  const auto init = reinterpret_cast<int (*)(unsigned)>(dlsym(driver, "cuInit"));
  const auto devices = reinterpret_cast<int (*)(int*)>(dlsym(driver, "cuDeviceGetCount"));
  const auto device = reinterpret_cast<int (*)(int*, int)>(dlsym(driver, "cuDeviceGet"));
  const auto attribute = reinterpret_cast<int (*)(int*, int, int)>(dlsym(driver, "cuDeviceGetAttribute"));
  int count = 0;
  if (!init || !devices || !device || !attribute || init(0) != 0 || devices(&count) != 0) return least;
  for (int i = 0; i < count; i++) {
    int handle, processors, major, minor;
    if (device(&handle, i) != 0 || attribute(&processors, kMultiprocessors, handle) != 0) return GpuInfo();
    if (attribute(&major, kMajor, handle) != 0 || attribute(&minor, kMinor, handle) != 0) return GpuInfo();
    const GpuInfo own{processors, 10 * major + minor};
    if (i == 0) least = own;
    least = {std::min(least.multiprocessors, own.multiprocessors), std::min(least.capability, own.capability)};
  }
  return least;
}
