/**
 * Checkpoints as files: reading and writing safetensors and shards, Hugging Face's names and configuration whatever the
 * container, agreement of weights and configuration. Plain bytes and typed arrays; no TensorFlow.js in here.
 */
export type { CheckpointSource, OutTensor, StoredDtype, TensorInfo } from './source.js';
export * from './dtypes.js';
export { parseConfigJson, stringifyConfigJson } from './config-json.js';
export { AtomicFile, RandomAccessFile, readTextIfThere, writeFileAtomic } from './files.js';
export { MAX_HEADER_BYTES, SafetensorsFile, parseSafetensorsHeader } from './safetensors.js';
export type { SafetensorsEntry, SafetensorsHeader } from './safetensors.js';
export { writeSafetensors } from './safetensors-writer.js';
export type { SaveProgress } from './safetensors-writer.js';
export { openCheckpoint } from './open.js';
export { parseSize, saveCheckpoint } from './save.js';
export type { SaveCheckpointOptions } from './save.js';
export { dimensionsOf, expectedTensors, findDisagreements, validateCheckpoint } from './validate.js';
export type { CheckpointReport, Dimensions, Disagreement, ValidateOptions } from './validate.js';
export { deriveConfig, refuseInexpressible } from './derive.js';
export { openTorchContainer, torchContainer } from './torch.js';
export { BytesInMemory, type ByteSource } from './files.js';
export { openSafetensorsContainer, safetensorsContainer } from './shards.js';
export type { Container, ContainerTensor } from './container.js';
export { COMPANION_FILES, convertCheckpoint, verifyConversion } from './convert.js';
export type { ConvertOptions, ConvertReport, VerifyReport } from './convert.js';
export { inspectCheckpoint, type Inspection, type InspectOptions } from './inspect.js';
export { companionFiles, convertedConfig, convertedTensors, refuseOwnFolder } from './convert.js';
export { openTfjsContainer, saveTfjs, tfjsConfig, tfjsName } from './tfjs.js';
export { locateModel, resolveModel, type HubOptions } from './hub.js';
export { hubCacheRoot, isOffline, isRepoId } from './hub-cache.js';
