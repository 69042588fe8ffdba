/**
 * A quantised weight as tensors of a checkpoint: torchao's plain packing under the names that transformers gives it.
 * For `….in_proj.weight` these are `….in_proj._weight_qdata`, `_weight_scale` and, int4, `_weight_zero_point`.
 */
import { CheckpointError } from '../base/errors.js';
import { encodeFloat32 } from '../base/stored_dtypes.js';
import type { QuantizedMatrix } from './quantize.js';

const PACKED = /^(.*\.)_weight_(qdata|scale|zero_point|scale_and_zero|act_pre_scale|per_tensor_scale)$/;

/** The weight that a packed tensor belongs to; null for tensors that are none. */
export function packedWeight(tensor: string): string | null {
  const found = PACKED.exec(tensor);
  return found ? `${found[1]}weight` : null;
}

/** Name of a part of a packed weight. */
export function packedName(weight: string, part: 'qdata' | 'scale' | 'zero_point'): string {
  return weight.replace(/weight$/, `_weight_${part}`);
}

/** One stored tensor of a packed weight, described. */
export interface PackedTensor {
  readonly name: string;
  readonly dtype: 'I8' | 'F32' | 'BF16';
  readonly shape: readonly number[];
}

/** What is written for a weight [out, in]. */
export function packedTensors(
  weight: string,
  shape: readonly number[],
  bits: 4 | 8,
  groupSize: number,
  scaleDtype: 'float32' | 'bfloat16',
): PackedTensor[] {
  const [out, inner] = shape as [number, number];
  const dtype = scaleDtype === 'bfloat16' ? 'BF16' : 'F32';
  if (bits === 8)
    return [
      { name: packedName(weight, 'qdata'), dtype: 'I8', shape: [out, inner] },
      { name: packedName(weight, 'scale'), dtype, shape: [out, 1] },
      { name: packedName(weight, 'zero_point'), dtype: 'I8', shape: [out, 1] },
    ];
  const groups = [inner / groupSize, out];
  return [
    { name: packedName(weight, 'qdata'), dtype: 'I8', shape: [out, inner / 2] },
    { name: packedName(weight, 'scale'), dtype, shape: groups },
    { name: packedName(weight, 'zero_point'), dtype, shape: groups },
  ];
}

/** The bytes of packedTensors(), in its order. */
export function packedBytes(m: QuantizedMatrix): Uint8Array[] {
  const zero = m.zero ? scaleBytes(m.zero, m.scaleDtype) : new Uint8Array(m.shape[0]);
  return [m.codes, scaleBytes(m.scale, m.scaleDtype), zero];
}

function scaleBytes(values: Float32Array, dtype: 'float32' | 'bfloat16'): Uint8Array {
  if (dtype === 'float32') return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  return encodeFloat32(values, 'BF16');
}

/** `__metadata__` entry of a packed weight, in torchao's form. */
export function packedMetadata(shape: readonly number[], bits: 4 | 8, groupSize: number): string {
  const dtype = { _type: 'torch.dtype', _data: 'bfloat16' };
  if (bits === 8)
    return JSON.stringify({
      _type: 'Int8Tensor',
      _data: { act_quant_kwargs: null, reduce_range: false, block_size: [1, shape[1]], dtype },
      _tensor_data_names: ['zero_point', 'qdata', 'scale'],
    });
  return JSON.stringify({
    _type: 'Int4Tensor',
    _data: { activation_dtype: dtype, block_size: [1, groupSize], shape },
    _tensor_data_names: ['qdata', 'scale', 'zero_point'],
  });
}

/** A stored tensor of a checkpoint, as far as packed weights need to know it. */
export interface StoredInfo {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly file: string;
}

/** How a packed weight is stored, read off its tensors. */
export interface PackedLayout {
  readonly bits: 4 | 8;
  readonly groupSize: number;
  readonly scaleDtype: 'float32' | 'bfloat16';
}

/**
 * Checks the tensors of a packed weight against its shape.
 *
 * @param weight its name @param shape [out, in] @param info looks up stored tensors
 * @returns the layout; null when the weight is not packed
 * @throws CheckpointError when a part is missing or misshapen, or the packing is another than plain
 */
export function packedLayout(
  weight: string,
  shape: readonly number[],
  info: (tensor: string) => StoredInfo | undefined,
): PackedLayout | null {
  if (!weight.endsWith('.weight')) return null;
  const qdata = info(packedName(weight, 'qdata'));
  if (!qdata) return null;
  const [out, inner] = shape as [number, number];
  const fail = (tensor: string, what: string): never => {
    throw new CheckpointError(
      `${qdata.file}: ${tensor} ${what}. Supported are torchao's plain int4 and int8 packings; quantise the model anew from its float weights.`,
      { file: qdata.file, tensor },
    );
  };
  for (const part of ['scale_and_zero', 'act_pre_scale', 'per_tensor_scale']) {
    const name = weight.replace(/weight$/, `_weight_${part}`);
    if (info(name)) fail(name, 'is of another packing');
  }
  const needed = (part: 'scale' | 'zero_point'): StoredInfo => {
    const name = packedName(weight, part);
    return info(name) ?? fail(name, `is missing beside ${packedName(weight, 'qdata')}`);
  };
  const scale = needed('scale');
  const scaleDtype = scale.dtype === 'BF16' ? 'bfloat16' : 'float32';
  if (scale.dtype !== 'BF16' && scale.dtype !== 'F32') fail(packedName(weight, 'scale'), `is of ${scale.dtype}`);
  const bytes = qdata.dtype === 'I8' || qdata.dtype === 'U8';
  if (bytes && qdata.shape.join() === [out, inner].join() && scale.shape.join() === [out, 1].join())
    return { bits: 8, groupSize: inner, scaleDtype };
  const groups = scale.shape[0]!;
  const groupSize = inner / groups;
  const zero = needed('zero_point');
  if (!bytes || qdata.shape.join() !== [out, inner / 2].join())
    fail(
      packedName(weight, 'qdata'),
      `is [${qdata.shape.join(', ')}] of ${qdata.dtype}, expected [${out}, ${inner / 2}] of I8`,
    );
  if (scale.shape.join() !== [groups, out].join() || !Number.isInteger(groupSize) || groupSize % 2 !== 0)
    fail(packedName(weight, 'scale'), `has shape [${scale.shape.join(', ')}], expected [groups, ${out}]`);
  if (zero.shape.join() !== scale.shape.join() || zero.dtype !== scale.dtype)
    fail(packedName(weight, 'zero_point'), `is [${zero.shape.join(', ')}] of ${zero.dtype}, unlike its scale`);
  return { bits: 4, groupSize, scaleDtype };
}

/**
 * Puts a packed weight together from the bytes of its tensors.
 * @param codes reads the codes; called at each use
 * @param zero null for symmetric int8
 * @throws CheckpointError when a scale or zero is not finite
 */
export function unpackWeight(
  weight: string,
  shape: readonly number[],
  layout: PackedLayout,
  codes: () => Uint8Array,
  scale: Float32Array,
  zero: Float32Array | null,
): QuantizedMatrix {
  for (const values of [scale, zero ?? []]) {
    const bad = values.findIndex((v) => !Number.isFinite(v));
    if (bad >= 0)
      throw new CheckpointError(`${weight}: scale or zero ${bad} is ${values[bad]}; the file is damaged.`, {
        tensor: weight,
      });
  }
  return {
    ...layout,
    shape: [shape[0]!, shape[1]!],
    scale,
    zero,
    get codes() {
      return codes();
    },
  };
}
