/**
 * Tensors of element types that tfjs has no name for. Such a tensor carries a label (float32 for bfloat16, int32 for uint8, int8, int16 and
 * int64). The ops of tfjs refuse it, eagerly and while tracing: convert with castFloat32 first. Of the ops here castTo alone has a gradient.
 */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError } from '../../base/errors.js';
import { createNative, wrapNative } from '../../runtime/binding.js';
import { dtypeNumber, sizeOf } from '../../runtime/data_types.js';
import { compilesWithXla, currentGraph, isTracing, symbolic } from '../trace/backend.js';
import { constantValue } from '../trace/graph.js';
import { attr } from '../trace/graphdef.js';
import { dtypeAttr, rawOp, trueDtype } from './raw_op.js';
import type { Dtype } from '../types.js';

/** A constant of any real element type. @param values row-major elements, rounded into the type */
export function constantOf(values: readonly number[], shape: readonly number[], dtype: Dtype): tf.Tensor {
  if (values.length !== sizeOf(shape)) {
    throw new ArgumentError(`constantOf: ${values.length} values do not fill [${shape.join(',')}].`, { shape });
  }
  if (dtype === 'float32' || dtype === 'int32' || dtype === 'bool') return tf.tensor([...values], [...shape], dtype);
  if (dtype === 'uint8') {
    const data = Uint8Array.from(values);
    if (isTracing()) return symbolic(constantValue(data, shape, dtype));
    return wrapNative({ id: createNative(dtype, shape, data), shape: [...shape], dtype: dtypeNumber(dtype) });
  }
  return tf.tidy(() => castTo(tf.tensor([...values], [...shape], 'float32'), dtype));
}

const isFloat = (dtype: Dtype): boolean => dtype === 'float32' || dtype === 'bfloat16' || dtype === 'float16';

/** As castTo, without a gradient. */
export function cast(x: tf.Tensor, dtype: Dtype): tf.Tensor {
  return rawOp('Cast', [x], { DstT: dtypeAttr(dtype), Truncate: attr.bool(false) })[0]!;
}

/**
 * Converts to any element type. float32 to bfloat16 rounds to nearest even; floats to integers truncate. Between float types the gradient
 * passes through (converted back).
 * @returns a new tensor in any case
 * @example const half = castTo(tf.tensor1d([1, 2.5]), 'bfloat16'); castFloat32(half).dataSync(); // [1, 2.5]
 */
export function castTo(x: tf.Tensor, dtype: Dtype): tf.Tensor {
  const from = trueDtype(x);
  if (!isFloat(from) || !isFloat(dtype)) return cast(x, dtype);
  return tf.customGrad((input: unknown) => ({
    value: cast(input as tf.Tensor, dtype),
    gradFunc: (dy: tf.Tensor) => cast(dy, from),
  }))(x);
}

/** Converts to float32. */
export function castFloat32(x: tf.Tensor): tf.Tensor {
  return castTo(x, 'float32');
}

/** Same bits as another element type. A smaller type adds a last axis, a larger one takes it away. */
export function bitcast(x: tf.Tensor, dtype: Dtype): tf.Tensor {
  return rawOp('Bitcast', [x], { type: dtypeAttr(dtype) })[0]!;
}

/** Reshape of a tensor of any element type (tfjs' own takes float32, int32 and bool). */
export function reshapeAny(x: tf.Tensor, shape: readonly number[]): tf.Tensor {
  const dims = tf.tensor1d([...shape], 'int32');
  const out = rawOp('Reshape', [x, dims])[0]!;
  dims.dispose();
  return out;
}

/**
 * Sums over one axis in the tensor's own type, modulo its size. (TensorFlow's Sum, compiled by XLA, converts small integers to larger ones, which
 * takes registers of twice the size.)
 */
export function sumInDtype(x: tf.Tensor, axis: number): tf.Tensor {
  if (!compilesWithXla()) {
    const axes = tf.tensor1d([axis], 'int32');
    const out = rawOp('Sum', [x, axes], { keep_dims: attr.bool(false) })[0]!;
    axes.dispose();
    return out;
  }
  const dtype = trueDtype(x);
  const number = dtypeNumber(dtype);
  const name = `add_${dtype}`;
  currentGraph().library.push({
    name,
    inputs: [
      ['a', number],
      ['b', number],
    ],
    outputs: [['sum', number]],
    nodes: [{ name: 'add', op: 'AddV2', inputs: ['a', 'b'], attrs: { T: attr.type(number) } }],
    returns: { sum: 'add:z:0' },
    effects: [],
    attrs: {},
  });
  const zero = castTo(tf.scalar(0, 'int32'), dtype);
  return rawOp('XlaReduce', [x, zero], { dimensions_to_reduce: attr.int([axis]), reducer: attr.func(name) })[0]!;
}

/** Bitwise AND of two integer tensors of one type, with broadcasting. */
export function bitwiseAnd(a: tf.Tensor, b: tf.Tensor): tf.Tensor {
  return rawOp('BitwiseAnd', [a, b])[0]!;
}

/** Shift to the right (arithmetic for signed types), with broadcasting. */
export function rightShift(a: tf.Tensor, b: tf.Tensor): tf.Tensor {
  return rawOp('RightShift', [a, b])[0]!;
}
