/**
 * Checkpoints as files. Plain bytes and typed arrays; no TensorFlow.js in here.
 * - reading: `openCheckpoint` over safetensors, shards, torch's zip pickle and TensorFlow.js' model.json, always under
 *   Hugging Face's names and configuration; `validateCheckpoint`, `inspectCheckpoint`
 * - writing: `saveCheckpoint`, `saveTfjs`, `convertCheckpoint`, `verifyConversion`; aside first, then renamed
 * - the hub: `resolveModel`, in the cache that Python shares
 */
export type { CheckpointSource, OutTensor, StoredDtype, TensorInfo } from './source.js';
export type { Container, ContainerTensor } from './container.js';
export { parseConfigJson, stringifyConfigJson } from './config_json.js';
export { MAX_HEADER_BYTES, SafetensorsFile, parseSafetensorsHeader } from './safetensors.js';
export type { SafetensorsEntry, SafetensorsHeader } from './safetensors.js';
export { writeSafetensors, type SaveProgress } from './safetensors_writer.js';
export { openSafetensorsContainer, safetensorsContainer } from './shards.js';
export { openTorchContainer, torchContainer } from './torch.js';
export { openTfjsContainer, saveTfjs, tfjsConfig, tfjsName } from './tfjs.js';
export { openCheckpoint } from './open.js';
export { deriveConfig, refuseInexpressible } from './derive.js';
export { dimensionsOf, expectedTensors, findDisagreements, validateCheckpoint } from './validate.js';
export type { CheckpointReport, Dimensions, Disagreement, ValidateOptions } from './validate.js';
export { inspectCheckpoint, type Inspection, type InspectOptions } from './inspect.js';
export { parseSize, saveCheckpoint, type SaveCheckpointOptions } from './save.js';
export { COMPANION_FILES, companionFiles, convertCheckpoint, convertedConfig, convertedTensors } from './convert.js';
export { refuseOwnFolder, refuseQuantized, verifyConversion } from './convert.js';
export type { ConvertOptions, ConvertReport, VerifyReport } from './convert.js';
export { locateModel, resolveModel, type HubOptions } from './hub.js';
export { hubCacheRoot, isOffline, isRepoId } from './hub_cache.js';
