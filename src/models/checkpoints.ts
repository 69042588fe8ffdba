/**
 * Checkpoints of this package's model: the functions of src/checkpoints with Mamba-2's names, shapes and configurations
 * passed in. Imports no TensorFlow.js.
 */
import * as files from '../checkpoints/index.js';
import type {
  CheckpointReport,
  CheckpointSource,
  ConvertOptions,
  ConvertReport,
  HubOptions,
  InspectionOf,
  InspectOptions,
  ModelPart,
  ValidateOptions,
  VerifyOptions,
  VerifyReport,
} from '../checkpoints/index.js';
import { mamba2Format } from './mamba2/checkpoint/format.js';
import type { Dimensions } from './mamba2/checkpoint/shapes.js';
import {
  CONVERT_TABLE,
  INSPECT_TABLE,
  RESOLVE_TABLE,
  VALIDATE_TABLE,
  VERIFY_TABLE,
} from '../checkpoints/save_options.js';

export type { Dimensions };
/** Outcome of inspectCheckpoint. */
export type Inspection = InspectionOf<Dimensions>;

/**
 * Opens a model folder: Hugging Face's (safetensors or torch files, one or in shards), state-spaces' or Mistral's, whose
 * configuration is translated. Reads configuration and headers only; tensors are read on demand.
 * @param dir the folder
 * @throws CheckpointError when files are missing or damaged; ConfigError when it is not a Mamba-2
 * @example
 * const source = await openCheckpoint('models/tiny-books-mamba2');
 * const embeddings = await source.readFloat32('backbone.embeddings.weight');
 * await source.close();
 */
export function openCheckpoint(dir: string): Promise<CheckpointSource> {
  return files.openCheckpoint(mamba2Format, dir);
}

/** The configuration of a folder, where it can be told without weights; null for state-spaces' and Mistral's. */
export function readConfigAlone(dir: string): Promise<Record<string, unknown> | null> {
  return files.readConfigAlone(mamba2Format, dir);
}

/**
 * Compares a checkpoint with its configuration, and decides whether the head is tied.
 *
 * With `tie_word_embeddings: true` and an lm_head.weight in the file, the two matrices are compared: some versions of
 * transformers did not tie, so the stored head may have diverged. It then wins, with a warning.
 * @throws CheckpointError listing what is missing, misshapen, unexpected or not of a floating dtype; ConfigError when the
 *   configuration contradicts itself
 */
export async function validateCheckpoint(
  source: CheckpointSource,
  options: ValidateOptions = {},
): Promise<CheckpointReport> {
  VALIDATE_TABLE.check(options);
  return files.validateCheckpoint(mamba2Format, source, options);
}

/**
 * Looks at a model folder or a file of weights; reads headers only.
 * @param target folder, or a .safetensors, .bin, .pt, .pth or index file
 * @throws CheckpointError when there is no such file or folder, or a single file cannot be read
 * @example (await inspectCheckpoint('models/tiny-books-mamba2')).parameters
 */
export async function inspectCheckpoint(target: string, options: InspectOptions = {}): Promise<Inspection> {
  INSPECT_TABLE.check(options);
  return files.inspectCheckpoint(mamba2Format, target, options);
}

/**
 * Writes a checkpoint in Hugging Face's safetensors layout, with its tokenizer files.
 * @param source an open checkpoint of any kind
 * @param dst folder to write; not the source's
 * @throws CheckpointError when weights and configuration disagree or a value does not fit the dtype; ArgumentError for
 *   the source's own folder; SaveError when writing fails. No file then looks finished.
 * @example await convertCheckpoint(await openCheckpoint('mamba2-130m'), 'mamba2-130m-hf', { dtype: 'BF16' })
 */
export async function convertCheckpoint(
  source: CheckpointSource,
  dst: string,
  options: ConvertOptions = {},
): Promise<ConvertReport> {
  CONVERT_TABLE.check(options);
  return files.convertCheckpoint(mamba2Format, source, dst, options);
}

/**
 * Compares a converted checkpoint with its source, every byte of every tensor, after the source's values are brought to
 * the dtype of the copy.
 * @returns the differences in words; none when the conversion is right
 */
export async function verifyConversion(
  source: CheckpointSource,
  copy: CheckpointSource,
  options: VerifyOptions = {},
): Promise<VerifyReport> {
  VERIFY_TABLE.check(options);
  return files.verifyConversion(mamba2Format, source, copy, options);
}

/**
 * The local folder of a model: the folder itself when there is one of that name, else a snapshot in the hub's cache,
 * fetched if need be.
 * @param name folder, or `org/name` on the hub
 * @param part what of it is wanted; default all
 * @throws CheckpointError when there is neither, access is denied, the network is off limits or fails and the cache does
 *   not have it, or a checksum is wrong; ArgumentError for a malformed name, revision or token
 * @example await resolveModel('state-spaces/mamba2-130m', { revision: 'main' })
 */
export async function resolveModel(name: string, options: HubOptions = {}, part: ModelPart = 'model'): Promise<string> {
  RESOLVE_TABLE.check(options);
  return files.resolveModel(mamba2Format, name, options, part);
}
