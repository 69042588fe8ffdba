/**
 * States as files: safetensors with `layers.I.conv`, `layers.I.ssm` and `logits` in float32, the ids fed to row R as
 * `ids.R` in int32, and metadata that says which model they belong to. The same for every engine.
 */
import { decodeFloat32, decodeInt32 } from '../../base/stored_dtypes.js';
import { SafetensorsFile } from '../../checkpoints/safetensors.js';
import { writeSafetensors } from '../../checkpoints/safetensors_writer.js';
import type { OutTensor } from '../../checkpoints/source.js';
import { ArgumentError, CheckpointError } from '../../base/errors.js';
import type { StateArrays, StateContents, StateFiles } from '../../generation/engine.js';
import { logitsBytes, stateBytes } from '../memory.js';
import { configHash, weightsHash } from './fingerprint.js';
import type { NetworkWeights } from '../network_weights.js';
import { checkStateArrays } from './arrays.js';
import type { StatesOf } from './cache.js';
import { plain, quote } from '../../base/quote.js';

const FORMAT = 'mamba2-state';
const VERSION = '1';

/** What a file of states says about itself, without its values. */
export interface StateInfo {
  file: string;
  /** Bytes of the file. */
  bytes: number;
  /** Tokens fed, per row. */
  seen: number[];
  /** Per row, whether it has logits to go on from. */
  fed: boolean[];
  /** The model it belongs to: keys of config.json that matter, as text. */
  config: Record<string, string>;
  config_sha256: string;
  weights_sha256: string;
  /** Whatever the program that wrote the file added. */
  extra: Record<string, string>;
}

/** Gives weightsHash(), or what it gave before. */
type HashOf = (weights: NetworkWeights) => Promise<string>;

const bytesOf = (view: Float32Array | Int32Array): Uint8Array =>
  new Uint8Array(view.buffer, view.byteOffset, view.byteLength);

/**
 * Writes a state: aside, then renamed.
 * @throws SaveError; nothing half written is left
 */
export async function writeStateFile(
  file: string,
  weights: NetworkWeights,
  contents: StateContents,
  hashOf: HashOf = weightsHash,
): Promise<void> {
  const { arrays, ids, extra } = contents;
  const config = weights.network.fingerprint();
  const tensors: OutTensor[] = Object.entries(arrays.tensors).map(([name, { shape, data }]) => ({
    name,
    dtype: 'F32',
    shape: [...shape],
    data: () => bytesOf(data),
  }));
  ids.forEach((row, i) =>
    tensors.push({ name: `ids.${i}`, dtype: 'I32', shape: [row.length], data: () => bytesOf(Int32Array.from(row)) }),
  );
  const metadata = {
    format: FORMAT,
    version: VERSION,
    seen: JSON.stringify(arrays.seen),
    fed: JSON.stringify(arrays.fed),
    config: JSON.stringify(config),
    config_sha256: configHash(config),
    weights_sha256: await hashOf(weights),
    extra: JSON.stringify(extra),
  };
  await writeSafetensors(file, tensors, { metadata });
}

/**
 * What a file of states says about itself.
 * @throws CheckpointError when it is none, or damaged
 * @example
 * const model = await AutoModelForCausalLM.from_pretrained('models/tiny-books-mamba2');
 * await (await model.prefill([5, 6, 7])).save('three.safetensors');
 * const { seen } = await inspectState('three.safetensors'); // [3]
 */
export async function inspectState(file: string): Promise<StateInfo> {
  const opened = await SafetensorsFile.open(file);
  try {
    return infoOf(opened);
  } finally {
    await opened.close();
  }
}

function infoOf(opened: SafetensorsFile): StateInfo {
  const { path: file, metadata, size } = opened;
  if (metadata.format !== FORMAT) {
    throw new CheckpointError(
      `${file} holds no state: its metadata has format ${quote(metadata.format ?? null)}, expected '${FORMAT}'. States are written by their save() and \`mamba2 state save\`.`,
      { file, got: metadata.format, expected: FORMAT },
    );
  }
  if (metadata.version !== VERSION) {
    throw new CheckpointError(
      `${file}: version ${plain(String(metadata.version))} of the state format, expected ${VERSION}. Write it anew with this version of the package.`,
      {
        file,
        got: metadata.version,
        expected: VERSION,
      },
    );
  }
  const read = <T>(key: string, good: (value: unknown) => value is T): T => {
    let value: unknown;
    try {
      value = JSON.parse(metadata[key] ?? '');
    } catch {
      value = undefined;
    }
    if (good(value)) return value;
    throw new CheckpointError(
      `${file}: metadata ${key} is ${quote(metadata[key])}, which this format does not allow. The file is damaged.`,
      {
        file,
        key,
        got: metadata[key],
      },
    );
  };
  const texts = (value: unknown): value is Record<string, string> =>
    typeof value === 'object' &&
    value !== null &&
    !Array.isArray(value) &&
    Object.values(value).every((v) => typeof v === 'string');
  return {
    file,
    bytes: size,
    seen: read(
      'seen',
      (v): v is number[] => Array.isArray(v) && v.length > 0 && v.every((n) => Number.isSafeInteger(n) && n >= 0),
    ),
    fed: read('fed', (v): v is boolean[] => Array.isArray(v) && v.every((b) => typeof b === 'boolean')),
    config: read('config', texts),
    config_sha256: metadata.config_sha256 ?? '',
    weights_sha256: metadata.weights_sha256 ?? '',
    extra: read('extra', texts),
  };
}

/** @throws CheckpointError when the file belongs to another model, naming what differs */
async function checkModel(info: StateInfo, weights: NetworkWeights, hashOf: HashOf): Promise<void> {
  const { file } = info;
  const own = weights.network.fingerprint();
  const key = Object.keys({ ...own, ...info.config }).find((k) => own[k] !== info.config[k]);
  if (key !== undefined) {
    throw new CheckpointError(
      `${file} is the state of another model: its ${plain(key)} is ${plain(info.config[key] ?? 'nothing')}, that of the model given is ${own[key]}.`,
      {
        file,
        key,
        got: info.config[key],
        expected: own[key],
      },
    );
  }
  const pairs = [
    ['config_sha256', info.config_sha256, configHash(own)],
    ['weights_sha256', info.weights_sha256, await hashOf(weights)],
  ] as const;
  for (const [name, got, expected] of pairs) {
    if (got === expected) continue;
    throw new CheckpointError(
      `${file} is the state of another model: its ${name} is ${plain(got, 17)}, that of the model given is ${expected.slice(0, 16)}…. ` +
        `A state fits the weights that made it only; feed the text to this model instead.`,
      { file, key: name, got, expected },
    );
  }
}

/**
 * Reads a state that belongs to a model.
 * @throws CheckpointError when the file is damaged or the state of another model
 */
export async function readStateFile(
  file: string,
  weights: NetworkWeights,
  hashOf: HashOf = weightsHash,
): Promise<StateContents> {
  const opened = await SafetensorsFile.open(file);
  try {
    const info = infoOf(opened);
    await checkModel(info, weights, hashOf);
    const tensors: Record<string, { shape: readonly number[]; data: Float32Array }> = {};
    const ids: number[][] = info.seen.map(() => []);
    for (const [name, { dtype, shape }] of opened.entries) {
      const row = /^ids\.(\d+)$/.exec(name)?.[1];
      if (row === undefined) {
        if (dtype !== 'F32')
          throw new CheckpointError(`${file}: tensor ${plain(name)} is ${dtype}, expected F32`, {
            file,
            tensor: name,
            got: dtype,
          });
        tensors[name] = { shape, data: decodeFloat32(await opened.read(name), dtype) };
      } else {
        if (ids[Number(row)] === undefined || dtype !== 'I32') {
          throw new CheckpointError(
            `${file}: tensor ${plain(name)} is ${dtype} of row ${row}, expected I32 of one of ${ids.length} rows`,
            { file, tensor: name },
          );
        }
        ids[Number(row)] = Array.from(decodeInt32(await opened.read(name), dtype));
      }
    }
    const arrays: StateArrays = { seen: info.seen, fed: info.fed, tensors };
    checkContents(file, weights.network, arrays);
    return { arrays, ids, extra: info.extra };
  } finally {
    await opened.close();
  }
}

function checkContents(file: string, network: StatesOf, arrays: StateArrays): void {
  try {
    checkStateArrays(network, arrays);
  } catch (error) {
    if (!(error instanceof ArgumentError)) throw error;
    throw new CheckpointError(
      `${file}: ${error.message}. The file is damaged.`,
      { ...error.data, file },
      { cause: error },
    );
  }
}

/** Files of the states of a model. Its weights are asked for once, until they change. */
export function stateFiles(weights: NetworkWeights): StateFiles {
  const { network } = weights;
  let known: { version: number; hash: Promise<string> } | null = null;
  const hashOf: HashOf = () => {
    if (known?.version !== weights.version) known = { version: weights.version, hash: weightsHash(weights) };
    return known.hash;
  };
  return {
    write: (file, contents) => writeStateFile(file, weights, contents, hashOf),
    read: (file) => readStateFile(file, weights, hashOf),
    row_bytes: stateBytes(network) + logitsBytes(network),
  };
}
