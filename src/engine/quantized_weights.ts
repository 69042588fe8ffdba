/** Quantised models: quantising weights as they are read, taking up checkpoints of packed weights, and writing them. */
import type * as tf from '@tensorflow/tfjs';
import { decodeFloat32, DTYPE_BYTES } from '../base/stored_dtypes.js';
import type { CheckpointSource, OutTensor } from '../checkpoints/source.js';
import { CheckpointError, ConfigError } from '../base/errors.js';
import {
  heldOnce,
  Int4WeightOnlyConfig,
  MatrixQuantizer,
  packedBytes,
  packedLayout,
  packedMetadata,
  packedName,
  packedTensors,
  planQuantization,
  QuantizedLinear,
  type QuantizationConfig,
  quantizationConfig,
  type QuantizationError,
  quantizationFromDict,
  quantizationToDict,
  type QuantizedMatrix,
  type Skipped,
  storedBytes,
  type TorchAoConfig,
  unpackWeight,
} from '../quant/index.js';
import type { WeightSpec } from '../layers/weights.js';
import type { NetworkWeights } from './network_weights.js';

/** What became of one weight. */
export interface QuantizedWeightReport {
  readonly name: string;
  readonly shape: readonly number[];
  /** Bytes as stored: codes, scales and zeros. */
  readonly bytes: number;
  /** Bits a weight, all told. */
  readonly bits: number;
  /** ‖w - ŵ‖ / ‖w‖; null for a weight that came quantised */
  readonly relative_error: number | null;
}

/** What quantising a model did. */
export interface QuantizationReport {
  readonly weights: readonly QuantizedWeightReport[];
  /** Matrices left in float, and why. */
  readonly skipped: readonly Skipped[];
}

export interface QuantizeOptions {
  signal?: AbortSignal;
  /** Called after each weight. */
  on_progress?: (done: number, total: number, name: string) => void;
}

/** What is known of a model whose weights were quantised. */
export interface Quantization {
  readonly config: QuantizationConfig;
  readonly report: QuantizationReport;
  readonly matrices: ReadonlyMap<string, QuantizedMatrix>;
}

const known = new WeakMap<NetworkWeights, Quantization>();

/** How the weights of a model are quantised; null when they are not. */
export function quantizationOf(weights: NetworkWeights): Quantization | null {
  return known.get(weights) ?? null;
}

/** The row of a report for a weight. */
export function reportRow(name: string, m: QuantizedMatrix, error: QuantizationError | null): QuantizedWeightReport {
  const bytes = storedBytes(m);
  return {
    name,
    shape: m.shape,
    bytes,
    bits: (bytes * 8) / (m.shape[0] * m.shape[1]),
    relative_error: error?.relative ?? null,
  };
}

/** Type of scales and zeros for a weight stored in `dtype`. */
export function scaleDtypeFor(config: QuantizationConfig, dtype: string | undefined): 'float32' | 'bfloat16' {
  if (config.scale_dtype !== 'auto') return config.scale_dtype;
  return dtype === 'BF16' ? 'bfloat16' : 'float32';
}

/** A quantizer for a weight under a configuration. */
export function quantizerFor(
  spec: { name: string; shape: readonly number[] },
  config: QuantizationConfig,
  dtype: string | undefined,
): MatrixQuantizer {
  const int4 = config instanceof Int4WeightOnlyConfig ? config : null;
  return new MatrixQuantizer([spec.shape[0]!, spec.shape[1]!], {
    bits: config.bits,
    groupSize: int4?.group_size,
    rounding: int4?.rounding,
    scaleDtype: scaleDtypeFor(config, dtype),
    name: spec.name,
  });
}

/** Bytes of float weights that are held at a time. */
const PIECE = 16 * 2 ** 20;

/** Rows of a stored matrix as float32, in pieces of whole rows. */
export async function* floatRows(source: CheckpointSource, name: string): AsyncGenerator<Float32Array> {
  const { dtype, shape } = source.tensors.get(name)!;
  const row = shape[1]! * DTYPE_BYTES[dtype];
  // pieces come in multiples of eight bytes
  const unit = row % 8 === 0 ? row : row * 8;
  const most = Math.max(1, Math.floor(PIECE / unit)) * unit;
  for await (const piece of source.readSlices(name, most)) yield decodeFloat32(piece, dtype);
}

async function quantizeOne(
  weights: NetworkWeights,
  spec: WeightSpec,
  config: QuantizationConfig,
): Promise<{ matrix: QuantizedMatrix; error: QuantizationError }> {
  const { source } = weights;
  const fromFile = source !== null && !weights.materialized;
  const quantizer = quantizerFor(spec, config, fromFile ? source.tensors.get(spec.name)?.dtype : undefined);
  if (fromFile) for await (const rows of floatRows(source, spec.name)) quantizer.rows(rows);
  else quantizer.rows((await (weights.all()[spec.name] as tf.Tensor).data()) as Float32Array);
  return quantizer.finish();
}

/**
 * Quantises the weights of a model, one at a time. Of a model that has not run yet the float matrices are never in
 * memory; of one that has, they stay beside the quantised ones.
 *
 * @throws ConfigError when the model is quantised already, or nothing in it can be; ArgumentError for a weight that is
 *   not finite. The model is then as it was.
 */
export async function quantizeWeights(
  weights: NetworkWeights,
  given: QuantizationConfig | TorchAoConfig,
  options: QuantizeOptions = {},
): Promise<QuantizationReport> {
  const config = quantizationConfig(given);
  if (known.has(weights)) throw alreadyQuantized(weights.source?.dir);
  const specs = weights.network.weightSpecs();
  const { names, skipped } = planQuantization(specs, config);
  const matrices = new Map<string, QuantizedMatrix>();
  const rows: QuantizedWeightReport[] = [];
  for (const spec of specs) {
    if (!names.includes(spec.name)) continue;
    options.signal?.throwIfAborted();
    const { matrix, error } = await quantizeOne(weights, spec, config);
    matrices.set(spec.name, heldOnce(matrix));
    rows.push(reportRow(spec.name, matrix, error));
    options.on_progress?.(rows.length, names.length, spec.name);
  }
  const report = { weights: rows, skipped };
  take(weights, config, matrices, report);
  return report;
}

function take(
  weights: NetworkWeights,
  config: QuantizationConfig,
  matrices: ReadonlyMap<string, QuantizedMatrix>,
  report: QuantizationReport,
): void {
  const rounds = config instanceof Int4WeightOnlyConfig ? config.activation_quantization : false;
  for (const [name, matrix] of matrices) weights.store(name, new QuantizedLinear(matrix, name, rounds));
  known.set(weights, { config, report, matrices });
}

/** The error for a model that is quantised once more. */
export function alreadyQuantized(dir = 'The model'): ConfigError {
  return new ConfigError(`${dir} is quantised already; quantise the float checkpoint it was made from instead.`, {
    dir,
  });
}

/** The configuration under which a checkpoint was quantised; null for one in float. @throws ConfigError */
export function checkpointQuantization(source: CheckpointSource): QuantizationConfig | null {
  const record = source.config.quantization_config;
  return record === undefined || record === null ? null : quantizationFromDict(record, `${source.dir}/config.json`);
}

/** Whether a checkpoint holds a weight in packed form. */
export function isPacked(source: CheckpointSource, weight: string): boolean {
  return weight.endsWith('.weight') && source.tensors.has(packedName(weight, 'qdata'));
}

/**
 * Takes up the packed weights of a quantised checkpoint; does nothing for one in float.
 * @throws CheckpointError when a packed weight is incomplete, misshapen or damaged
 */
export async function restoreQuantized(weights: NetworkWeights): Promise<void> {
  const { source } = weights;
  const config = source && checkpointQuantization(source);
  if (!config) return;
  const matrices = new Map<string, QuantizedMatrix>();
  for (const spec of weights.network.weightSpecs()) {
    const matrix = await readPacked(source, spec);
    if (matrix) matrices.set(spec.name, matrix);
  }
  if (matrices.size === 0)
    throw new CheckpointError(
      `${source.dir}: config.json has a quantization_config, but no weight is quantised. Take it out, or fetch the folder again.`,
      { file: source.dir },
    );
  const rows = [...matrices].map(([name, matrix]) => reportRow(name, matrix, null));
  take(weights, config, matrices, { weights: rows, skipped: [] });
}

async function readPacked(source: CheckpointSource, spec: WeightSpec): Promise<QuantizedMatrix | null> {
  const layout = packedLayout(spec.name, spec.shape, (name) => source.tensors.get(name));
  if (!layout) return null;
  const read = (part: 'scale' | 'zero_point'): Promise<Float32Array> => source.readFloat32(packedName(spec.name, part));
  const zero = layout.bits === 4 ? await read('zero_point') : null;
  if (layout.bits === 8) await refuseZeros(source, packedName(spec.name, 'zero_point'));
  // codes stay in the file until somebody wants them: a compiled program keeps its own, and the host then none
  await source.hold?.(packedName(spec.name, 'qdata'));
  const codes = (): Uint8Array => source.readBytesSync(packedName(spec.name, 'qdata'));
  return unpackWeight(spec.name, spec.shape, layout, codes, await read('scale'), zero);
}

/** Symmetric int8 stores zeros of 0, or none. */
async function refuseZeros(source: CheckpointSource, name: string): Promise<void> {
  const info = source.tensors.get(name);
  if (info && (await source.readBytes(name)).some((byte) => byte !== 0))
    throw new CheckpointError(`${info.file}: ${name} is not zero; asymmetric int8 is not supported.`, { tensor: name });
}

/** The tensors that a packed weight is written as. */
export function packedOutTensors(name: string, m: QuantizedMatrix): OutTensor[] {
  return packedTensors(name, m.shape, m.bits, m.groupSize, m.scaleDtype).map((t, i) => ({
    ...t,
    data: () => packedBytes(m)[i]!,
  }));
}

/** `__metadata__` of a quantised checkpoint, in torchao's form: which weight is of what class. */
export function quantizedMetadata(
  specs: readonly { name: string; shape: readonly number[] }[],
  packed: ReadonlyMap<string, { bits: 4 | 8; groupSize: number }>,
): Record<string, string> {
  const sorted = [...specs].sort((a, b) => (a.name < b.name ? -1 : 1));
  const metadata: Record<string, string> = {
    format: 'pt',
    tensor_names: JSON.stringify(sorted.map(({ name }) => name)),
  };
  for (const { name, shape } of sorted) {
    const found = packed.get(name);
    metadata[name] = found ? packedMetadata(shape, found.bits, found.groupSize) : '{"_type": "Tensor"}';
  }
  return metadata;
}

/** `quantization_config` of a quantised model's config.json. */
export function quantizationRecord(config: QuantizationConfig): Record<string, unknown> {
  return { quantization_config: quantizationToDict(config) };
}
