/**
 * Checkpoints as files. Plain bytes and typed arrays; no TensorFlow.js in here.
 * - reading: `openCheckpoint` over safetensors, shards, torch's zip pickle and TensorFlow.js' model.json, always under
 *   Hugging Face's names and configuration; `validateCheckpoint`, `inspectCheckpoint`
 * - writing: `saveCheckpoint`, `saveTfjs`, `convertCheckpoint`, `verifyConversion`; aside first, then renamed
 * - the hub: `resolveModel`, in the cache that Python shares
 * What all of them must know of the model itself they ask a `ModelFormat`; src/models/checkpoints.ts passes it in.
 */
export type { CheckpointSource, OutTensor, StoredDtype, TensorInfo } from './source.js';
export type { Container, ContainerTensor } from './container.js';
export { parseConfigJson, stringifyConfigJson } from './config_json.js';
export { SafetensorsFile, parseSafetensorsHeader } from './safetensors.js';
export type { SafetensorsEntry } from './safetensors.js';
export { writeSafetensors, type SaveProgress } from './safetensors_writer.js';
export { safetensorsContainer } from './shards.js';
export { openTorchContainer, torchContainer } from './torch.js';
export { saveTfjs } from './tfjs.js';
export type { ModelDimensions } from './model_format.js';
export { openCheckpoint, readConfigAlone } from './open.js';
export { validateCheckpoint } from './validate.js';
export type { CheckpointReport, ValidateOptions } from './validate.js';
export { inspectCheckpoint, type InspectionOf, type InspectOptions } from './inspect.js';
export { saveCheckpoint, type SaveCheckpointOptions } from './save.js';
export { companionFiles, convertCheckpoint } from './convert.js';
export { verifyConversion } from './convert.js';
export type { ConvertOptions, ConvertReport, VerifyOptions, VerifyReport } from './convert.js';
export { resolveModel, type ModelPart } from './hub.js';
export { type HubOptions, HUB_OTHERS, HUB_RULES } from './hub_options.js';
