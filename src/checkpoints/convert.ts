/**
 * Any readable checkpoint to Hugging Face's layout, tensor by tensor and slice by slice, so that memory does not grow
 * with the model; and the comparison of the two afterwards.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { concatBytes, equalBytes } from '../base/bytes.js';
import { ArgumentError, CheckpointError, ConfigError } from '../base/errors.js';
import { decodeFloat32, DTYPE_BYTES, encodeFloat32, torchDtypeName, type FloatDtype } from '../base/stored_dtypes.js';
import { saveCheckpoint, type SaveCheckpointOptions } from './save.js';
import type { ModelFormat } from './model_format.js';
import type { CheckpointSource, OutTensor, StoredDtype } from './source.js';
import { validateCheckpoint } from './validate.js';
import { readBytes } from '../base/regular_file.js';
import { plain } from '../base/quote.js';

/** Files that belong to a model beside its weights and configuration. */
const COMPANION_FILES: readonly string[] = [
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'vocab.json',
  'merges.txt',
  'tokenizer.model',
  'tokenizer.model.v3',
  'chat_template.jinja',
  'chat_template.json',
];

/** Folder of further chat templates, NAME.jinja each. */
const TEMPLATES = 'additional_chat_templates';

/** Whether a file of a model, named within its folder, goes along with it unchanged. */
export function isCompanion(name: string): boolean {
  return (
    COMPANION_FILES.includes(name) ||
    (name.startsWith(`${TEMPLATES}/`) && /^[^/\\]+\.jinja$/.test(name.slice(TEMPLATES.length + 1)))
  );
}

/** Options of verifyConversion. */
export interface VerifyOptions {
  /** ends the comparison by throwing its reason */
  signal?: AbortSignal;
  /** called after each tensor */
  on_tensor?: (name: string, bytes: number) => void;
}

/** Options of convertCheckpoint. */
export interface ConvertOptions extends Omit<SaveCheckpointOptions, 'metadata' | 'extra_files'> {
  /**
   * dtype of the weights in the new files; default: each as stored. A_log, D and dt_bias are never narrowed: the
   * recurrence multiplies their errors along the sequence.
   */
  dtype?: FloatDtype;
}

/** What a conversion has to tell. */
export interface ConvertReport {
  readonly tensors: number;
  readonly bytes: number;
  readonly warnings: readonly string[];
}

/** The dtype that a tensor gets. */
function targetDtype(
  model: ModelFormat,
  name: string,
  stored: StoredDtype,
  asked: FloatDtype | undefined,
): StoredDtype {
  if (!asked) return stored;
  return model.keepsPrecision(name) && DTYPE_BYTES[stored] > DTYPE_BYTES[asked] ? 'F32' : asked;
}

/** One piece of a tensor in its new dtype; the same bytes when that is the old one. */
function convertPiece(piece: Uint8Array, from: StoredDtype, to: StoredDtype, name: string, file: string): Uint8Array {
  if (from === to) return piece;
  const values = decodeFloat32(piece, from);
  const out = encodeFloat32(values, to as FloatDtype);
  // float32 and bfloat16 reach far beyond float16: an overflow would be an infinite weight
  if (to === 'F16') {
    const half = new Uint16Array(out.buffer);
    for (let i = 0; i < half.length; i++)
      if ((half[i]! & 0x7fff) === 0x7c00 && Number.isFinite(values[i]))
        throw new CheckpointError(
          `${file}: tensor ${plain(name)} holds ${values[i]}, which is beyond float16's 65504. Convert to bfloat16 or float32.`,
          { file, tensor: name, got: values[i] },
        );
  }
  return out;
}

async function* convertedSlices(source: CheckpointSource, name: string, to: StoredDtype): AsyncGenerator<Uint8Array> {
  const { dtype, file } = source.tensors.get(name)!;
  for await (const piece of source.readSlices(name)) yield convertPiece(piece, dtype, to, name, file);
}

/** The tensors to be written: those of the model, without a head that is the embeddings once more. */
export function convertedTensors(
  model: ModelFormat,
  source: CheckpointSource,
  tied: boolean,
  dtype?: FloatDtype,
): OutTensor[] {
  const out: OutTensor[] = [];
  // in the order of the model, whatever that of the file
  for (const name of model.expectedTensors({ ...source.config, tie_word_embeddings: tied }).keys()) {
    const { dtype: stored, shape } = source.tensors.get(name)!;
    const target = targetDtype(model, name, stored, dtype);
    out.push({
      name,
      dtype: target,
      shape,
      data: async () => {
        const pieces: Uint8Array[] = [];
        for await (const piece of convertedSlices(source, name, target)) pieces.push(piece);
        return concatBytes(pieces);
      },
      slices: () => convertedSlices(source, name, target),
    });
  }
  return out;
}

/** @throws ArgumentError when `dst` is the folder that the source is read from */
export function refuseOwnFolder(source: CheckpointSource, dst: string): void {
  const real = (dir: string): string => (fs.existsSync(dir) ? fs.realpathSync(dir) : path.resolve(dir));
  if (real(dst) !== real(source.dir)) return;
  throw new ArgumentError(`${dst} is the folder of the checkpoint itself. Name another one to write to.`, {
    option: 'dst',
    got: dst,
  });
}

/** @throws ConfigError when the weights are packed: they can be loaded, not converted */
export function refuseQuantized(source: CheckpointSource): void {
  if (!source.config.quantization_config) return;
  throw new ConfigError(
    `${source.dir} is quantised (quantization_config in config.json). Its weights cannot be converted; convert the checkpoint that it was made from.`,
    { file: source.dir, option: 'quantization_config' },
  );
}

/** Small files that go along unchanged. */
export async function companionFiles(dir: string): Promise<Record<string, Uint8Array>> {
  const out: Record<string, Uint8Array> = {};
  const templates = await fs.promises.readdir(path.join(dir, TEMPLATES)).catch((): string[] => []);
  for (const name of [...COMPANION_FILES, ...templates.map((file) => `${TEMPLATES}/${file}`).filter(isCompanion)]) {
    const file = path.join(dir, name);
    if (fs.existsSync(file)) out[name] = await readBytes(file, CheckpointError);
  }
  return out;
}

/** The configuration of the converted model. */
export function convertedConfig(
  source: CheckpointSource,
  tied: boolean,
  dtype: FloatDtype | undefined,
): Record<string, unknown> {
  const config: Record<string, unknown> = { ...source.config, tie_word_embeddings: tied };
  if (dtype) {
    config.dtype = torchDtypeName(dtype);
    if ('torch_dtype' in config) config.torch_dtype = config.dtype;
  }
  return config;
}

/**
 * Writes a checkpoint in Hugging Face's safetensors layout, with its tokenizer files.
 * @param source an open checkpoint of any kind
 * @param dst folder to write; not the source's
 * @throws CheckpointError when weights and configuration disagree or a value does not fit the dtype; ArgumentError for
 *   the source's own folder; SaveError when writing fails. No file then looks finished.
 */
export async function convertCheckpoint(
  model: ModelFormat,
  source: CheckpointSource,
  dst: string,
  options: ConvertOptions = {},
): Promise<ConvertReport> {
  refuseOwnFolder(source, dst);
  refuseQuantized(source);
  const { dtype, ...save } = options;
  const { tied, warnings } = await validateCheckpoint(model, source);
  const tensors = convertedTensors(model, source, tied, dtype);
  let bytes = 0;
  await saveCheckpoint(dst, convertedConfig(source, tied, dtype), tensors, {
    ...save,
    extra_files: await companionFiles(source.dir),
    on_progress: (progress) => {
      bytes = progress.written;
      save.on_progress?.(progress);
    },
  });
  return { tensors: tensors.length, bytes, warnings };
}

/** Outcome of verifyConversion: how many tensors were compared, and which differ. */
export interface VerifyReport {
  readonly tensors: number;
  readonly differences: readonly string[];
}

/** Index of the first differing byte of two streams of pieces; -1 when they are equal. */
async function firstDifference(a: AsyncIterable<Uint8Array>, b: AsyncIterable<Uint8Array>): Promise<number> {
  const other = b[Symbol.asyncIterator]();
  let held: Uint8Array = new Uint8Array(0);
  let at = 0;
  for await (let piece of a) {
    while (piece.byteLength > 0) {
      if (held.byteLength === 0) {
        const next = await other.next();
        if (next.done) return at;
        held = next.value;
        continue;
      }
      const length = Math.min(piece.byteLength, held.byteLength);
      const [left, right] = [piece.subarray(0, length), held.subarray(0, length)];
      if (!equalBytes(left, right)) return at + left.findIndex((byte, i) => byte !== right[i]);
      [piece, held, at] = [piece.subarray(length), held.subarray(length), at + length];
    }
  }
  return held.byteLength > 0 || !(await other.next()).done ? at : -1;
}

/**
 * Compares a converted checkpoint with its source, every byte of every tensor, after the source's values are brought to
 * the dtype of the copy.
 * @returns the differences in words; none when the conversion is right
 */
export async function verifyConversion(
  model: ModelFormat,
  source: CheckpointSource,
  copy: CheckpointSource,
  options: VerifyOptions = {},
): Promise<VerifyReport> {
  const { tied } = await validateCheckpoint(model, source);
  const differences: string[] = [];
  let tensors = 0;
  for (const [name, info] of source.tensors) {
    if (tied && name === model.names.head) continue;
    options.signal?.throwIfAborted();
    const other = copy.tensors.get(name);
    tensors++;
    if (!other) differences.push(`${plain(name)} is not in ${copy.dir}`);
    else if (other.shape.join() !== info.shape.join())
      differences.push(`${plain(name)} has shape [${info.shape.join(', ')}], its copy [${other.shape.join(', ')}]`);
    else {
      const at = await firstDifference(convertedSlices(source, name, other.dtype), copy.readSlices(name));
      if (at >= 0)
        differences.push(`${plain(name)} differs from element ${Math.floor(at / DTYPE_BYTES[other.dtype])} on`);
      options.on_tensor?.(name, other.bytes);
    }
  }
  for (const name of copy.tensors.keys())
    if (!source.tensors.has(name)) differences.push(`${plain(name)} is in ${copy.dir} only`);
  return { tensors, differences };
}
