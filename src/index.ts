/** The public API of tfjs-mamba2. */
export * from './base/errors.js';
export * from './models/mamba2/index.js';
export * from './models/auto/index.js';
export * from './generation/index.js';
export * from './tokenizers/index.js';
export * from './pipelines/index.js';
export * from './layers/index.js';
export * from './quant/index.js';
export * from './peft/index.js';
export * from './jit/index.js';
export {
  configureRuntime,
  type Device,
  deviceReport,
  type DeviceReport,
  loadTensorFlow,
  selectBackend,
  setupRuntime,
} from './runtime/index.js';
export {
  type CheckpointSource,
  convertCheckpoint,
  type HubOptions,
  inspectCheckpoint,
  openCheckpoint,
  resolveModel,
  saveCheckpoint,
  validateCheckpoint,
  verifyConversion,
} from './checkpoints/index.js';
export { exportLayersModel } from './models/mamba2/tfjs_export.js';
export * from './training/index.js';
