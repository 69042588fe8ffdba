/**
 * Opening a model folder of any known kind.
 */
import type { HeldBytes } from '../base/blocks.js';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { CheckpointError } from '../base/errors.js';
import { parseConfigJson } from './config_json.js';
import type { Container, ContainerTensor } from './container.js';
import { decodeFloat32, DTYPE_BYTES, isFloatDtype } from '../base/stored_dtypes.js';
import { readTextIfThere } from '../base/files.js';
import { isThere, saidOfAbsent } from '../base/regular_file.js';
import type { ModelFormat } from './model_format.js';
import { withHuggingFaceNames } from './names.js';
import { openSafetensorsContainer, openSharded } from './shards.js';
import type { CheckpointSource, TensorInfo } from './source.js';
import { openTfjsContainer, tfjsConfig } from './tfjs.js';
import { openTorchContainer } from './torch.js';
import { plain } from '../base/quote.js';

const SLICE = 16 * 2 ** 20;

/** What kind of folder this is, judged by its config.json or params.json. */
interface Kind {
  format: CheckpointSource['format'];
  config: Record<string, unknown>;
  file: string;
}

/** Reads config.json, or Mistral's params.json where there is none. */
async function readKind(model: ModelFormat, dir: string): Promise<Kind> {
  const configFile = path.join(dir, 'config.json');
  const text = await readTextIfThere(configFile);
  if (text !== null) {
    const config = parseConfigJson(text, configFile);
    return { format: model.formatOf(config, configFile), config, file: configFile };
  }
  const paramsFile = path.join(dir, 'params.json');
  const params = await readTextIfThere(paramsFile);
  if (params !== null) return { format: 'mistral', config: parseConfigJson(params, paramsFile), file: paramsFile };
  const modelFile = path.join(dir, 'model.json');
  const layers = await readTextIfThere(modelFile);
  if (layers !== null) return { format: 'hf', config: tfjsConfig(model, layers, modelFile), file: modelFile };
  throw new CheckpointError(
    `${dir} has neither config.json (Hugging Face, state-spaces) nor params.json (Mistral) nor model.json (TensorFlow.js). Name the folder of a model.${await saidOfAbsent(configFile)}`,
    { file: configFile },
  );
}

/** Whether a folder's configuration is one of a model that can be loaded, judged without its weights. @throws ConfigError or CheckpointError */
export async function judgeConfig(model: ModelFormat, dir: string): Promise<void> {
  const { format, config, file } = await readKind(model, dir);
  model.refuseInexpressible(new Map(), config, file);
  if (format === 'hf') model.dimensionsOf(model.huggingFaceConfig(config, file), file);
}

/**
 * The configuration of a folder in Hugging Face's layout, read without its weights. Null for other layouts, whose configuration
 * says less than their weights do.
 * @throws ConfigError or CheckpointError as openCheckpoint
 */
export async function readConfigAlone(model: ModelFormat, dir: string): Promise<Record<string, unknown> | null> {
  const { format, config, file } = await readKind(model, dir);
  model.refuseInexpressible(new Map(), config, file);
  return format === 'hf' ? config : null;
}

/** The weight files that may be there, in the order in which they are looked for, and how each is opened. */
const WEIGHTS: readonly (readonly [string, (file: string) => Promise<Container>])[] = [
  ['model.safetensors', openSafetensorsContainer],
  ['model.safetensors.index.json', (file) => openSharded(file, openSafetensorsContainer)],
  ['pytorch_model.bin', openTorchContainer],
  ['pytorch_model.bin.index.json', (file) => openSharded(file, openTorchContainer)],
  ['consolidated.safetensors', openSafetensorsContainer],
  ['model.json', openTfjsContainer],
];

/** Names under which a folder's weights are looked for, the preferred one first. */
export const WEIGHT_FILES: readonly string[] = WEIGHTS.map(([name]) => name);

/** The file of weights (or index) that a folder would be loaded from; null when there is none. */
export async function findWeights(dir: string): Promise<string | null> {
  for (const name of WEIGHT_FILES) {
    const file = path.join(dir, name);
    if (await isThere(file)) return file;
  }
  return null;
}

/** Opens a folder's weights under their own names. @throws CheckpointError when there are none */
export async function openWeights(dir: string): Promise<Container> {
  const file = await findWeights(dir);
  if (file) return WEIGHTS.find(([name]) => name === path.basename(file))![1](file);
  const said = await saidOfAbsent(path.join(dir, WEIGHT_FILES[0]!));
  throw new CheckpointError(`${dir} has no weights: none of ${WEIGHT_FILES.join(', ')} is there.${said}`, {
    file: dir,
    expected: WEIGHT_FILES,
  });
}

/** A container under Hugging Face's names and configuration. */
export class NamedCheckpoint implements CheckpointSource {
  readonly tensors: ReadonlyMap<string, TensorInfo>;

  constructor(
    readonly format: CheckpointSource['format'],
    readonly dir: string,
    readonly config: Record<string, unknown>,
    private readonly parts: ReadonlyMap<string, ContainerTensor>,
    private readonly container: Container,
  ) {
    const infos = new Map<string, TensorInfo>();
    for (const [name, { dtype, shape, bytes, file }] of parts) infos.set(name, { name, dtype, shape, bytes, file });
    this.tensors = infos;
  }

  readBytes(name: string): Promise<Uint8Array> {
    return this.part(name).read();
  }

  async readHeld(name: string): Promise<HeldBytes | null> {
    return (await this.part(name).readHeld?.()) ?? null;
  }

  readBytesSync(name: string): Uint8Array {
    return this.part(name).readSync();
  }

  async hold(name: string): Promise<void> {
    await this.part(name).hold?.();
  }

  async readFloat32(name: string): Promise<Float32Array> {
    const part = this.part(name);
    if (!isFloatDtype(part.dtype))
      throw new CheckpointError(
        `${part.file}: tensor ${plain(name)} is stored as ${part.dtype}; F32, F16, BF16 or F64 was expected.`,
        { file: part.file, tensor: name, got: part.dtype },
      );
    const size = DTYPE_BYTES[part.dtype];
    const out = new Float32Array(part.bytes / size);
    let at = 0;
    for await (const slice of part.slices(SLICE)) {
      decodeFloat32(slice, part.dtype, out.subarray(at, at + slice.byteLength / size));
      at += slice.byteLength / size;
    }
    return out;
  }

  readSlices(name: string, maxBytes = SLICE): AsyncIterable<Uint8Array> {
    return this.part(name).slices(Math.max(8, maxBytes - (maxBytes % 8)));
  }

  close(): Promise<void> {
    return this.container.close();
  }

  private part(name: string): ContainerTensor {
    const part = this.parts.get(name);
    if (part) return part;
    throw new CheckpointError(`${this.dir} holds no tensor ${plain(name)}.`, { file: this.dir, tensor: name });
  }
}

/**
 * Opens a model folder: Hugging Face's (safetensors or torch files, one or in shards), state-spaces' or Mistral's, whose
 * configuration is translated. Reads configuration and headers only; tensors are read on demand.
 * @param model the kind of model that is expected
 * @param dir the folder
 * @throws CheckpointError when files are missing or damaged; ConfigError when it is of another model
 */
export async function openCheckpoint(model: ModelFormat, dir: string): Promise<CheckpointSource> {
  const stat = await fs.promises.stat(dir).catch(() => null);
  if (!stat?.isDirectory())
    throw new CheckpointError(`${dir} is not a folder. Name the folder that holds config.json and the weights.`, {
      file: dir,
    });
  const { format, config, file } = await readKind(model, dir);
  const container = await openWeights(dir);
  try {
    const parts = withHuggingFaceNames(model, container);
    model.refuseInexpressible(parts, config, file);
    const named =
      format === 'hf' ? model.huggingFaceConfig(config, file) : model.deriveConfig(format, config, parts, file);
    return new NamedCheckpoint(format, dir, named, parts, container);
  } catch (error) {
    await container.close();
    throw error;
  }
}
