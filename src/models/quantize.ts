/** Quantising a loaded model, and a checkpoint folder that may be larger than memory. */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { companionFiles } from '../checkpoints/convert.js';
import { saveCheckpoint, type SaveCheckpointOptions } from '../checkpoints/save.js';
import type { CheckpointSource, OutTensor } from '../checkpoints/source.js';
import { ArgumentError, CheckpointError } from '../base/errors.js';
import * as kinds from '../base/option_kinds.js';
import { OptionTable, type OtherNames } from '../base/options.js';
import {
  Int4WeightOnlyConfig,
  packedBytes,
  packedTensors,
  planQuantization,
  type QuantizationConfig,
  quantizationConfig,
  type TorchAoConfig,
} from '../quant/index.js';
import type { CausalLM } from './causal_lm.js';
import { openCheckpoint, validateCheckpoint } from './checkpoints.js';
import { expectedTensors } from './mamba2/checkpoint/shapes.js';
import { weightRoles } from './mamba2/network.js';
import {
  alreadyQuantized,
  floatRows,
  quantizationRecord,
  type QuantizationReport,
  quantizedMetadata,
  type QuantizedWeightReport,
  type QuantizeOptions,
  quantizerFor,
  quantizeWeights,
  reportRow,
  scaleDtypeFor,
} from '../engine/quantized_weights.js';

/**
 * Quantises the matrices of a model in place. Best called right after loading: the float matrices are then never in
 * memory. A model that has already run keeps them beside the quantised ones.
 *
 * @returns what was quantised, with the relative error of each weight, and what was skipped and why
 * @throws ConfigError when the model is quantised already or nothing in it can be
 * @example
 * const model = await Mamba2ForCausalLM.from_pretrained('models/tiny-books-mamba2');
 * const report = await quantize(model, new Int4WeightOnlyConfig({ group_size: 128 }));
 */
export async function quantize(
  model: CausalLM,
  config: QuantizationConfig | TorchAoConfig,
  options: QuantizeOptions = {},
): Promise<QuantizationReport> {
  QUANTIZE_TABLE.check(options);
  return quantizeWeights(model.weights, config, options);
}

export interface QuantizeCheckpointOptions extends Pick<
  SaveCheckpointOptions,
  'max_shard_size' | 'legacy_json' | 'signal' | 'on_progress'
> {
  /** Codes are kept between writing scales and writing codes up to so many bytes; more are worked out twice. Default 256 MiB. */
  code_bytes?: number;
}

const WATCHED = { signal: { kind: kinds.abortSignal }, on_progress: { kind: kinds.func } };
const OTHERS: OtherNames = { abort_signal: 'signal', progress_callback: 'on_progress', onProgress: 'on_progress' };

const QUANTIZE_TABLE = new OptionTable<QuantizeOptions>('quantize()', WATCHED, { others: OTHERS });

const QUANTIZE_CHECKPOINT_TABLE = new OptionTable<QuantizeCheckpointOptions>(
  'quantizeCheckpoint()',
  {
    ...WATCHED,
    // sizes as text are read by saveCheckpoint()
    max_shard_size: { kind: kinds.either(kinds.integer({ min: 1 }), kinds.text) },
    legacy_json: { kind: kinds.boolean },
    code_bytes: { kind: kinds.integer({ min: 0 }), default: 256 * 2 ** 20 },
  },
  { others: OTHERS },
);

/** What quantizeCheckpoint did. */
export interface CheckpointQuantization extends QuantizationReport {
  /** Bytes of all weights before and after. */
  readonly source_bytes: number;
  readonly bytes: number;
  readonly warnings: readonly string[];
}

/**
 * Quantises a checkpoint folder into another, with its tokenizer files, holding one matrix at a time: the model may be
 * larger than memory. Needs no TensorFlow.
 *
 * @param src folder of a float checkpoint of any kind @param dst folder to write
 * @throws ConfigError when it is quantised already or nothing in it can be; CheckpointError for damaged files;
 *   ArgumentError for a weight that is not finite, or when both folders are one; SaveError. No file then looks finished.
 * @example
 * await quantizeCheckpoint('mamba2-2.7b', 'mamba2-2.7b-int4', new Int4WeightOnlyConfig());
 */
export async function quantizeCheckpoint(
  src: string,
  dst: string,
  given: QuantizationConfig | TorchAoConfig,
  options: QuantizeCheckpointOptions = {},
): Promise<CheckpointQuantization> {
  QUANTIZE_CHECKPOINT_TABLE.check(options);
  const config = quantizationConfig(given);
  const real = (dir: string): string => (fs.existsSync(dir) ? fs.realpathSync(dir) : path.resolve(dir));
  if (real(src) === real(dst))
    throw new ArgumentError(`${dst} is the folder to be quantised. Name another one to write to.`, { dst });
  const source = await openCheckpoint(src);
  try {
    return await quantizeSource(source, dst, config, options);
  } finally {
    await source.close();
  }
}

async function quantizeSource(
  source: CheckpointSource,
  dst: string,
  config: QuantizationConfig,
  options: QuantizeCheckpointOptions,
): Promise<CheckpointQuantization> {
  if (source.config.quantization_config) throw alreadyQuantized(source.dir);
  const { tied, warnings } = await validateCheckpoint(source);
  const record = { ...source.config, tie_word_embeddings: tied };
  const roles = weightRoles(record);
  const specs = [...expectedTensors(record)].map(([name, shape]) => ({ name, shape, role: roles.get(name)! }));
  const { names, skipped } = planQuantization(specs, config);
  const rows = new Map<string, QuantizedWeightReport>();
  const { code_bytes = 256 * 2 ** 20, ...save } = options;
  const keep = { left: code_bytes };
  const tensors = specs.flatMap(({ name, shape }): OutTensor[] => {
    if (!names.includes(name)) {
      const { dtype } = source.tensors.get(name)!;
      return [{ name, dtype, shape, data: () => source.readBytes(name), slices: () => source.readSlices(name) }];
    }
    return packedWhileWriting(source, name, config, keep, (row) => rows.set(name, row), options.signal);
  });
  const layout = new Map(names.map((name) => [name, { bits: config.bits, groupSize: groupOf(config) }] as const));
  let bytes = 0;
  await saveCheckpoint(dst, { ...record, ...quantizationRecord(config) }, tensors, {
    ...save,
    metadata: quantizedMetadata(specs, layout),
    extra_files: await companionFiles(source.dir),
    on_progress: (progress) => {
      bytes = progress.written;
      options.on_progress?.(progress);
    },
  });
  const source_bytes = specs.reduce((sum, { name }) => sum + source.tensors.get(name)!.bytes, 0);
  return { weights: names.map((name) => rows.get(name)!), skipped, source_bytes, bytes, warnings };
}

function groupOf(config: QuantizationConfig): number {
  return config instanceof Int4WeightOnlyConfig ? config.group_size : 0;
}

/**
 * The tensors of a weight that is quantised when the first of them is written. A file has its scales before its codes;
 * codes are kept from one to the other while there is room, and else quantised once more.
 */
function packedWhileWriting(
  source: CheckpointSource,
  name: string,
  config: QuantizationConfig,
  keep: { left: number },
  onRow: (row: QuantizedWeightReport) => void,
  signal?: AbortSignal,
): OutTensor[] {
  const { shape, dtype, file } = source.tensors.get(name)!;
  const parts: (Uint8Array | null)[] = [null, null, null];
  const work = async (): Promise<Uint8Array[]> => {
    const quantizer = quantizerFor({ name, shape }, config, dtype);
    for await (const values of floatRows(source, name)) {
      signal?.throwIfAborted();
      try {
        quantizer.rows(values);
      } catch (error) {
        throw new CheckpointError(`${file}: ${(error as Error).message}`, { file, tensor: name }, { cause: error });
      }
    }
    const { matrix, error } = quantizer.finish();
    onRow(reportRow(name, matrix, error));
    return packedBytes(matrix);
  };
  const part = async (index: number): Promise<Uint8Array> => {
    let found = parts[index];
    if (!found) {
      const made = await work();
      found = made[index]!;
      made.forEach((bytes, i) => {
        // small ones are kept until written, codes while there is room
        if (i === index || (i === 0 && bytes.byteLength > keep.left)) return;
        if (i === 0) keep.left -= bytes.byteLength;
        parts[i] = bytes;
      });
    } else if (index === 0) keep.left += found.byteLength;
    parts[index] = null;
    return found;
  };
  const scale = scaleDtypeFor(config, dtype);
  return packedTensors(name, shape, config.bits, groupOf(config) || shape[1]!, scale).map((t, i) => ({
    ...t,
    data: () => part(i),
  }));
}
