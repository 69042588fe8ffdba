/**
 * TensorFlow.js model folders: model.json with a weights manifest, and the weights' bytes cut into shard files. Written
 * from a stream of tensors, read as a container. TensorFlow.js has no bfloat16: such tensors are kept as float32, which
 * holds them exactly, and the manifest entry remembers where they come from. float16 stays what it is.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { CheckpointError } from '../base/errors.js';
import { parseConfigJson, stringifyConfigJson } from './config_json.js';
import type { Container, ContainerTensor } from './container.js';
import { decodeFloat32, DTYPE_BYTES, elementCount, encodeFloat32 } from '../base/stored_dtypes.js';
import { AtomicFile, saveError, writeAside, writeTogether } from '../base/whole_files.js';
import { RandomAccessFile, readTextIfThere, type ByteSource } from '../base/files.js';
import { parseSize, writeExtraFiles, type SaveCheckpointOptions } from './save.js';
import type { LayerJson, ModelFormat } from './model_format.js';
import type { OutTensor, StoredDtype } from './source.js';
import { plain, quote } from '../base/quote.js';
import { SAVE_TFJS_TABLE } from './save_options.js';

type Json = Record<string, unknown>;

/** A weight of the manifest. `stored_dtype` is ours; TensorFlow.js passes over it, and drops it when it saves. */
interface ManifestWeight {
  name: string;
  shape: readonly number[];
  dtype: string;
  quantization?: { dtype: string; original_dtype?: string };
  stored_dtype?: StoredDtype;
}

/** What TensorFlow.js calls a tensor: `layers.0/mixer.D` for `backbone.layers.0.mixer.D`. */
function tfjsName(name: string): string {
  return name.replace(/^backbone\./, '').replace(/^(layers\.\d+|[^.]+)\./, '$1/');
}

/** A tensor as TensorFlow.js stores it: its manifest entry, and how its bytes are changed. */
function asManifest({ name, dtype, shape }: OutTensor): {
  entry: ManifestWeight;
  encode: (b: Uint8Array) => Uint8Array;
} {
  const entry: ManifestWeight = { name: tfjsName(name), shape, dtype: 'float32' };
  const asFloat32 = (bytes: Uint8Array): Uint8Array => encodeFloat32(decodeFloat32(bytes, dtype), 'F32');
  if (dtype === 'F16') {
    const quantization = { dtype: 'float16', original_dtype: 'float32' };
    return { entry: { ...entry, quantization }, encode: (bytes) => bytes };
  }
  if (dtype === 'F32') return { entry, encode: (bytes) => bytes };
  return { entry: dtype === 'BF16' ? { ...entry, stored_dtype: dtype } : entry, encode: asFloat32 };
}

/** Cuts a stream of bytes into files of equal size, each left aside until all are whole. */
class ShardWriter {
  private readonly files: AtomicFile[] = [];
  private room = 0;
  /** @param aside is given each file as it is begun */
  constructor(
    private readonly aside: AtomicFile[],
    private readonly dir: string,
    private readonly count: number,
    private readonly limit: number,
  ) {}

  async write(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.byteLength;) {
      if (this.room === 0) await this.next();
      const length = Math.min(this.room, bytes.byteLength - at);
      await this.files.at(-1)!.write(bytes.subarray(at, at + length));
      this.room -= length;
      at += length;
    }
  }

  async finish(): Promise<void> {
    await this.files.at(-1)?.finish();
  }

  private async next(): Promise<void> {
    await this.finish();
    const name = shardName(this.files.length, this.count);
    const file = await AtomicFile.create(path.join(this.dir, name));
    this.files.push(file);
    this.aside.push(file);
    this.room = this.limit;
  }
}

function shardName(index: number, count: number): string {
  return `group1-shard${index + 1}of${count}.bin`;
}

/** Options of saveTfjs. */
export interface SaveTfjsOptions extends SaveCheckpointOptions {
  /** what model.json says of its writer; default this package */
  generatedBy?: string;
}

/**
 * Writes a folder that tf.loadLayersModel reads, and openCheckpoint too.
 * @param topology the model's JSON, as LayersModel.toJSON gives it
 * @param config Hugging Face's configuration, kept in config.json and in model.json's userDefinedMetadata
 * @param options max_shard_size is 4 MB by default, as in TensorFlow.js' own converter: browsers cache small files
 * @throws SaveError; no file then has its final name
 */
export async function saveTfjs(
  dir: string,
  topology: Json,
  config: Json,
  tensors: readonly OutTensor[],
  options: SaveTfjsOptions = {},
): Promise<void> {
  SAVE_TFJS_TABLE.check(options);
  const limit = parseSize(options.max_shard_size ?? 4_000_000);
  const parts = tensors.map((tensor) => {
    const size = DTYPE_BYTES[tensor.dtype === 'F16' ? 'F16' : 'F32'];
    return { tensor, bytes: elementCount(tensor.shape)! * size, ...asManifest(tensor) };
  });
  const total = parts.reduce((sum, { bytes }) => sum + bytes, 0);
  const count = Math.ceil(total / limit);
  try {
    await fs.promises.mkdir(dir, { recursive: true });
  } catch (error) {
    throw saveError(dir, error);
  }
  const paths = Array.from({ length: count }, (_, i) => shardName(i, count));
  await writeTogether(async (aside) => {
    const shards = new ShardWriter(aside, dir, count, limit);
    let written = 0;
    for (const { tensor, bytes, encode } of parts) {
      options.signal?.throwIfAborted();
      for await (const slice of tensor.slices ? tensor.slices() : [await tensor.data()])
        await shards.write(encode(slice));
      written += bytes;
      options.on_progress?.({ written, total, tensor: tensor.name });
    }
    await shards.finish();
    const model = {
      format: 'layers-model',
      generatedBy: options.generatedBy ?? 'tfjs-mamba2',
      convertedBy: null,
      modelTopology: topology,
      userDefinedMetadata: { config: JSON.parse(stringifyConfigJson(config)) as Json },
      weightsManifest: [{ paths, weights: parts.map(({ entry }) => entry) }],
    };
    await writeExtraFiles(dir, options.extra_files ?? {}, aside);
    aside.push(
      await writeAside(
        path.join(dir, 'config.json'),
        stringifyConfigJson(config, { legacy_json: options.legacy_json }),
      ),
    );
    aside.push(await writeAside(path.join(dir, 'model.json'), JSON.stringify(model)));
    options.signal?.throwIfAborted();
  });
  for (const file of await fs.promises.readdir(dir))
    if (/^group1-shard\d+of\d+\.bin$/.test(file) && !paths.includes(file)) await fs.promises.rm(path.join(dir, file));
}

/** Several files, read as one. */
class Concatenated implements ByteSource {
  readonly size: number;
  private readonly starts: number[] = [];
  constructor(
    readonly path: string,
    private readonly files: readonly RandomAccessFile[],
  ) {
    let size = 0;
    for (const file of files) {
      this.starts.push(size);
      size += file.size;
    }
    this.size = size;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    const out = new Uint8Array(this.check(offset, length));
    for (const [file, from, count, to] of this.parts(offset, length)) out.set(await file.read(from, count), to);
    return out;
  }
  readSync(offset: number, length: number): Uint8Array {
    const out = new Uint8Array(this.check(offset, length));
    for (const [file, from, count, to] of this.parts(offset, length)) out.set(file.readSync(from, count), to);
    return out;
  }
  async close(): Promise<void> {
    await Promise.all(this.files.map((file) => file.close()));
  }

  private check(offset: number, length: number): number {
    if (offset + length <= this.size) return length;
    throw new CheckpointError(`${this.path}: its shards end before byte ${offset + length}.`, { file: this.path });
  }
  private parts(offset: number, length: number): [RandomAccessFile, number, number, number][] {
    const out: [RandomAccessFile, number, number, number][] = [];
    for (const [i, file] of this.files.entries()) {
      const begin = Math.max(offset, this.starts[i]!);
      const end = Math.min(offset + length, this.starts[i]! + file.size);
      if (end > begin) out.push([file, begin - this.starts[i]!, end - begin, begin - offset]);
    }
    return out;
  }
}

/** bfloat16 from the float32 that stands for it, none of whose digits may be lost. */
function exactBf16(bytes: Uint8Array, file: string, name: string): Uint8Array {
  const halves = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2);
  const out = new Uint16Array(halves.length / 2);
  for (let i = 0; i < out.length; i++) {
    if (halves[2 * i] !== 0)
      throw new CheckpointError(
        `${file}: tensor ${plain(name)} is said to be BF16, but element ${i} has more digits.`,
        {
          file,
          tensor: name,
        },
      );
    out[i] = halves[2 * i + 1]!;
  }
  return new Uint8Array(out.buffer);
}

/** The dtype in the file and the one that is shown. */
function dtypesOf(weight: ManifestWeight, file: string): { inFile: StoredDtype; shown: StoredDtype } {
  const { dtype, quantization, stored_dtype: shown } = weight;
  const fail = (what: string): never => {
    throw new CheckpointError(`${file}: tensor ${plain(weight.name)}: ${what} is not supported.`, {
      file,
      tensor: weight.name,
    });
  };
  if (quantization) {
    if (dtype !== 'float32' || quantization.dtype !== 'float16') fail(`quantization to ${quote(quantization.dtype)}`);
    return { inFile: 'F16', shown: 'F16' };
  }
  if (dtype === 'int32') return { inFile: 'I32', shown: 'I32' };
  if (dtype !== 'float32') fail(`dtype ${quote(dtype)}`);
  return { inFile: 'F32', shown: shown === 'BF16' ? 'BF16' : 'F32' };
}

interface Group {
  paths: string[];
  weights: ManifestWeight[];
}

function manifestOf(model: Json, file: string): Group[] {
  const isText = (value: unknown): value is string => typeof value === 'string';
  const groups = model.weightsManifest;
  const good =
    Array.isArray(groups) &&
    groups.every((group: Json | null) => {
      const { paths, weights } = group ?? {};
      if (!Array.isArray(paths) || !paths.every(isText) || !Array.isArray(weights)) return false;
      return weights.every((w: Json | null) => isText(w?.name) && Array.isArray(w.shape) && isText(w.dtype));
    });
  if (!good) throw new CheckpointError(`${file} has no weightsManifest of paths and weights.`, { file });
  return groups as Group[];
}

/**
 * Opens the weights of a TensorFlow.js LayersModel, under Hugging Face's names.
 * @param modelFile model.json
 * @throws CheckpointError when the manifest and the shard files disagree
 */
export async function openTfjsContainer(modelFile: string): Promise<Container> {
  const model = parseConfigJson((await readTextIfThere(modelFile)) ?? '', modelFile);
  const open: RandomAccessFile[] = [];
  const tensors = new Map<string, ContainerTensor>();
  try {
    for (const { paths, weights } of manifestOf(model, modelFile)) {
      const files: RandomAccessFile[] = [];
      for (const name of paths) {
        if (name === '' || name.startsWith('.') || /[/\\\0]/.test(name))
          throw new CheckpointError(
            `${modelFile} names the shard ${quote(name)}; a file name in the same folder was expected.`,
            { file: modelFile, got: name },
          );
        files.push(await RandomAccessFile.open(path.join(path.dirname(modelFile), name)));
        open.push(files.at(-1)!);
      }
      const bytes = new Concatenated(modelFile, files);
      let at = 0;
      for (const weight of weights) {
        const name = weight.name.replace('/', '.');
        if (tensors.has(name))
          throw new CheckpointError(`${modelFile} lists tensor ${plain(name)} twice.`, {
            file: modelFile,
            tensor: name,
          });
        const tensor = tensorOf(bytes, name, weight, at);
        tensors.set(name, tensor.tensor);
        at = tensor.end;
      }
      if (at !== bytes.size)
        throw new CheckpointError(`${modelFile}: its shards have ${bytes.size} bytes; its weights take ${at}.`, {
          file: modelFile,
          got: bytes.size,
          expected: at,
        });
    }
  } catch (error) {
    await Promise.all(open.map((file) => file.close()));
    throw error;
  }
  return {
    tensors,
    close: async () => {
      await Promise.all(open.map((file) => file.close()));
    },
  };
}

function tensorOf(
  bytes: ByteSource,
  name: string,
  weight: ManifestWeight,
  begin: number,
): { tensor: ContainerTensor; end: number } {
  const file = bytes.path;
  const { inFile, shown } = dtypesOf(weight, file);
  const count = elementCount(weight.shape);
  if (count === null || !(begin + count * DTYPE_BYTES[inFile] <= bytes.size))
    throw new CheckpointError(
      `${file}: tensor ${plain(name)} of shape ${quote(weight.shape)} reaches past the end of its shards.`,
      { file, tensor: name },
    );
  const length = count * DTYPE_BYTES[inFile];
  const convert = (part: Uint8Array): Uint8Array => (shown === 'BF16' ? exactBf16(part, file, name) : part);
  const tensor: ContainerTensor = {
    dtype: shown,
    shape: weight.shape,
    bytes: count * DTYPE_BYTES[shown],
    file,
    read: async () => convert(await bytes.read(begin, length)),
    readSync: () => convert(bytes.readSync(begin, length)),
    async *slices(maxBytes) {
      for (let at = begin; at < begin + length; at += maxBytes)
        yield convert(await bytes.read(at, Math.min(maxBytes, begin + length - at)));
    },
  };
  return { tensor, end: begin + length };
}

/**
 * The Hugging Face configuration of a model.json: as this package wrote it, or, for a model that TensorFlow.js saved
 * itself, read off its layers.
 */
export function tfjsConfig(model: Pick<ModelFormat, 'layersConfig'>, text: string, file: string): Json {
  const json = parseConfigJson(text, file);
  const own = (json.userDefinedMetadata as Json | undefined)?.config;
  if (typeof own === 'object' && own !== null) return own as Json;
  const topology = json.modelTopology as { config?: { layers?: LayerJson[] } } | undefined;
  const layers = Array.isArray(topology?.config?.layers) ? topology.config.layers : [];
  return model.layersConfig(layers, file);
}
