/**
 * Which TensorFlow computations run on: setting up the native runtime (setup), loading it (load) with its settings (environment), choosing a
 * backend by device name (backend), and an honest report (report). `binding.ts` alone speaks to tfjs-node and its addon, `native_session.ts` to
 * the addon of sessions, and `data_types.ts` is the one table of element types; `jit` imports these from their files.
 * `file_handler.ts` gives tfjs its file:// addresses.
 */
export { onGpu, selectBackend, type SelectOptions } from './backend.js';
export { gpuRooms } from './cards.js';
export { codeDigest } from './code.js';
export type { Device, DeviceLike, DeviceMap, MaxMemory } from '../base/devices.js';
export { graphCacheDir } from './caches.js';
export { chosenGpu, configureRuntime, preferWideVectors, type RuntimeOptions } from './environment.js';
export { largestGpuMemory } from './gpu.js';
export { compactMemory, computeCapability, hostKernels, loadTensorFlow, multiprocessors } from './load.js';
export { cacheRoot, TENSORFLOW_VERSION } from './paths.js';
export { deviceReport, type DeviceReport } from './report.js';
export { setupRuntime, type SetupOptions, type SetupResult } from './setup.js';
export { packageVersion } from './version.js';
