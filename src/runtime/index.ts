/**
 * Which TensorFlow computations run on: setting up the native runtime (setup), loading it (load) with its settings
 * (environment), choosing a backend by device name (backend), an honest report (report), and native tensors of element
 * types that tfjs does not know (raw).
 */
export { onGpu, selectBackend, type SelectOptions } from './backend.js';
export {
  DT,
  nativeBinding,
  tensorFlowBackend,
  type DTName,
  type OpAttr,
  type TensorFlowBackend,
  type TensorMetadata,
  type TFJSBinding,
} from './binding.js';
export { codeDigest } from './code.js';
export { DEVICES, type Device } from '../base/devices.js';
export {
  compileCacheDir,
  configureRuntime,
  graphCacheDir,
  isLoaded,
  preferWideVectors,
  type RuntimeOptions,
} from './environment.js';
export { computeCapability, hostKernels, loadTensorFlow, multiprocessors, compactMemory } from './load.js';
export {
  cacheRoot,
  readManifest,
  runtimeDir,
  runtimeSlot,
  TENSORFLOW_VERSION,
  TFJS_NODE_VERSION,
  type RuntimeManifest,
  type RuntimeVariant,
} from './paths.js';
export { executeRaw, RawTensor, typeAttr } from './raw.js';
export { deviceReport, type DeviceReport } from './report.js';
export { setupRuntime, type SetupOptions, type SetupResult } from './setup.js';
export { packageVersion } from './version.js';
