/**
 * Ops that tfjs does not have: element types that tfjs has no name for, and what decoding programs need. Each works in
 * traced code and eagerly on the tensorflow backend.
 *
 * A tensor of a type without a tfjs name carries a label (float32 for bfloat16, int32 for uint8, int8, int16 and int64).
 * The ops of tfjs refuse it, eagerly and while tracing: convert with castFloat32 first. None of the ops here but castTo,
 * matMulBf16 and gatherRows has a gradient.
 */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError, TracingError } from '../../base/errors.js';
import { cpuFeatures } from '../../runtime/cpu.js';
import { compilesWithXla, currentGraph, isSymbolic, isTracing, record, symbolic, valueOf } from '../trace/backend.js';
import { dtypeBytes, dtypeNumber, sizeOf } from '../../runtime/data_types.js';
import { constantValue } from '../trace/graph.js';
import { attr, type Attr, type Attrs } from '../trace/graphdef.js';
import { createNative, nativeDtype, nativeId, nodeBackend, wrapNative, type NativeAttr } from '../program/native.js';
import type { Dtype } from '../types.js';

/** The true element type of a tensor, symbolic or on the tensorflow backend; on other backends what its label says. */
export function trueDtype(x: tf.Tensor): Dtype {
  if (isSymbolic(x)) return valueOf(x).dtype;
  return tf.findBackend('tensorflow') && nodeBackend().tensorMap.has(x.dataId) ? nativeDtype(x) : (x.dtype as Dtype);
}

function nativeAttr(name: string, a: Attr): NativeAttr {
  const { binding } = nodeBackend();
  switch (a.kind) {
    case 'type':
      return { name, type: binding.TF_ATTR_TYPE, value: a.value };
    case 'int':
      return { name, type: binding.TF_ATTR_INT, value: a.value };
    case 'float':
      return { name, type: binding.TF_ATTR_FLOAT, value: a.value };
    case 'bool':
      return { name, type: binding.TF_ATTR_BOOL, value: a.value };
    case 'string':
      return { name, type: binding.TF_ATTR_STRING, value: a.value };
    case 'shape':
      return { name, type: binding.TF_ATTR_SHAPE, value: a.value };
    default:
      throw new ArgumentError(`Attribute '${name}' of kind ${a.kind} works in traced code only.`, { attribute: name });
  }
}

/**
 * Any TensorFlow op with a shape function, by name.
 * @param attrs attributes that the inputs do not determine, made with `attr`
 * @param outputs how many outputs to return, default 1
 * @throws TracingError in traced code when the op is unknown or its inputs do not fit
 * @example const [low] = rawOp('BitwiseAnd', [packed, constantOf([15], [], 'uint8')]);
 */
export function rawOp(op: string, inputs: readonly tf.Tensor[], attrs: Attrs = {}, outputs = 1): tf.Tensor[] {
  if (isTracing()) return record(op, attrs, inputs.map(valueOf)).slice(0, outputs).map(symbolic);
  const natives = Object.entries(attrs).map(([name, a]) => nativeAttr(name, a));
  return nodeBackend().binding.executeOp(op, natives, inputs.map(nativeId), outputs).map(wrapNative);
}

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

/** dtype attribute of rawOp. */
export function dtypeAttr(dtype: Dtype): Attr {
  return attr.type(dtypeNumber(dtype));
}

const isFloat = (dtype: Dtype): boolean => dtype === 'float32' || dtype === 'bfloat16' || dtype === 'float16';

function cast(x: tf.Tensor, dtype: Dtype): tf.Tensor {
  return rawOp('Cast', [x], { DstT: dtypeAttr(dtype), Truncate: attr.bool(false) })[0]!;
}

/**
 * Converts to any element type. float32 to bfloat16 rounds to nearest even; floats to integers truncate. Between float types the gradient
 * passes through (converted back).
 * @returns a new tensor in any case
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

/** Shift to the left, with broadcasting. */
export function leftShift(a: tf.Tensor, b: tf.Tensor): tf.Tensor {
  return rawOp('LeftShift', [a, b])[0]!;
}

/**
 * The same tensor, and in traced code a border: what lies between two borders is outlined into a function, and functions of the same
 * text (equal stages of a computation) are one, which TensorFlow reads and converts for XLA once. XLA puts them together again.
 */
export function outlineBorder<T extends tf.Tensor>(x: T): T {
  if (!isTracing() || currentGraph().parent) return x;
  return tf.customGrad((input: unknown) => ({
    value: symbolic(record('Identity', {}, [valueOf(input as tf.Tensor)], 'border')[0]!),
    gradFunc: (dy: tf.Tensor) => dy,
  }))(x) as T;
}

const MATMUL_BF16 = 'MatMulBfloat16';
const GATHER_ROWS = 'GatherRows';

function product(a: tf.Tensor, b: tf.Tensor, transposeA: boolean, transposeB: boolean): tf.Tensor {
  return tf.tidy(() => {
    const [x, y] = [a, b].map((t) => (trueDtype(t) === 'bfloat16' ? t : cast(t, 'bfloat16'))) as [tf.Tensor, tf.Tensor];
    const flags = { transpose_a: attr.bool(transposeA), transpose_b: attr.bool(transposeB) };
    return cast(rawOp('MatMul', [x, y], flags)[0]!, 'float32');
  });
}

/**
 * x [m, k] times w [n, k] transposed: [m, n], float32 in and out, multiplied in bfloat16 (x is rounded, products are summed in float32 and
 * the sum is rounded once more to bfloat16). Gradients for x, and for w in w's own type.
 * @param x float32 [m, k]
 * @param w bfloat16 (or float32, then rounded) [n, k]
 */
export function matMulBf16(x: tf.Tensor, w: tf.Tensor): tf.Tensor2D {
  if (x.rank !== 2 || w.rank !== 2 || x.shape[1] !== w.shape[1]) {
    throw new ArgumentError(
      `matMulBf16: got x [${x.shape.join(',')}] and w [${w.shape.join(',')}], expected [m, k] and [n, k].`,
      {
        x: x.shape,
        w: w.shape,
      },
    );
  }
  return tf.engine().runKernel(MATMUL_BF16, { x, w }) as tf.Tensor2D;
}

/** The least float32: a bound that no weight is below. */
const LEAST = -3.4028234663852886e38;

/** Most rows that are multiplied one by one: for more, a bfloat16 matrix is converted to float32 once and for all. */
const FEW_ROWS = 8;
/** Elements of a bfloat16 matrix that stay in a cache (8 MiB) while row after row is multiplied by them. */
const CACHED = 2 ** 22;

/**
 * x·Wᵀ row by row, some rows of W at a time: XLA's product of several rows would write the converted matrix to memory first. Each row's sums
 * are those that it has alone.
 */
function productByRows(x: tf.Tensor2D, w: tf.Tensor2D): tf.Tensor2D {
  const [n, k] = w.shape;
  const step = Math.ceil(n / Math.ceil((n * k) / CACHED));
  const rows = tf.split(x, x.shape[0]);
  const columns: tf.Tensor2D[] = [];
  for (let at = 0; at < n; at += step) {
    const some = step < n ? tf.slice(w, [at, 0], [Math.min(step, n - at), k]) : w;
    columns.push(
      tf.concat(
        rows.map((row) => tf.matMul(row, some, false, true) as tf.Tensor2D),
        0,
      ),
    );
  }
  return columns.length === 1 ? columns[0]! : tf.concat(columns, 1);
}

/** Whether this processor multiplies bfloat16 by instructions of its own, which oneDNN uses and XLA does not. */
const multipliesBfloat16 = ((): (() => boolean) => {
  let known: boolean | null = null;
  return () => (known ??= cpuFeatures().some((name) => name === 'avx512_bf16' || name === 'amx_bf16'));
})();

/** x·W, or x·Wᵀ, as a kernel of TensorFlow between functions that XLA compiles. */
function productByKernel(x: tf.Tensor2D, w: tf.Tensor, transposed: boolean): tf.Tensor2D {
  const flags = { transpose_a: attr.bool(false), transpose_b: attr.bool(transposed) };
  const bf16 = trueDtype(w) === 'bfloat16';
  return tf.customGrad((input: unknown) => {
    const rounded = bf16 ? cast(input as tf.Tensor, 'bfloat16') : (input as tf.Tensor);
    const out = symbolic(record('MatMul', flags, [valueOf(rounded), valueOf(w)], 'tensorflow')[0]!);
    const gradFunc = (): never => {
      throw new TracingError(
        'Products that are kernels of TensorFlow have no gradient: define the function without `tensorflowProducts`.',
      );
    };
    return { value: bf16 ? cast(out, 'float32') : out, gradFunc };
  })(x) as tf.Tensor2D;
}

/**
 * x [m, k] times w [n, k] transposed: [m, n], float32, in the form that suits the device. A GPU multiplies a bfloat16 w
 * by matMulBf16; otherwise w is converted to float32 and all arithmetic is float32.
 *
 * Of one row, XLA compiles a bare product on the CPU to a loop in one thread, but one whose matrix is computed element by
 * element (converted from bfloat16, or bounded by the least float32, which changes nothing) to a vectorised loop over all
 * threads that reads the matrix once. A few rows of a bfloat16 matrix go one by one. In functions defined with `tensorflowProducts`, more rows
 * are multiplied by TensorFlow's kernel: float32 in float32; bfloat16, where the processor has instructions for it, as matMulBf16 does.
 * @param x float32 [m, k]
 * @param w float32 or bfloat16 [n, k]; gradients for both
 */
export function matMulStored(x: tf.Tensor2D, w: tf.Tensor): tf.Tensor2D {
  const bf16 = trueDtype(w) === 'bfloat16';
  const { isUsingGpuDevice } = nodeBackend();
  if (bf16 && isUsingGpuDevice) return matMulBf16(x, w);
  return tf.tidy(() => {
    const onCpu = isTracing() && !isUsingGpuDevice;
    if (onCpu && currentGraph().tensorflowProducts && x.shape[0] > FEW_ROWS && (!bf16 || multipliesBfloat16()))
      return productByKernel(x, w, true);
    const matrix = (bf16 ? castFloat32(w) : onCpu && x.shape[0] === 1 ? tf.maximum(w, LEAST) : w) as tf.Tensor2D;
    const few = onCpu && bf16 && x.shape[0] > 1 && x.shape[0] <= FEW_ROWS;
    return few ? productByRows(x, matrix) : tf.matMul(x, matrix, false, true);
  });
}

/**
 * x [m, k] times w [k, n]: [m, n], float32, for a matrix that the function itself computes (a dequantised one). In functions
 * defined with `tensorflowProducts` the product is TensorFlow's kernel.
 * @param w float32 [k, n]
 * @param rounds whether x and w may be rounded to bfloat16, which is done where the processor multiplies that faster
 */
export function matMulComputed(x: tf.Tensor2D, w: tf.Tensor2D, rounds: boolean): tf.Tensor2D {
  return tf.tidy(() => {
    if (!isTracing() || !currentGraph().tensorflowProducts || nodeBackend().isUsingGpuDevice) return tf.matMul(x, w);
    return productByKernel(x, rounds && multipliesBfloat16() ? castTo(w, 'bfloat16') : w, false);
  });
}

/**
 * Rows of a table: w[ids] as float32.
 * Ids must lie in 0 … v-1: compiled code cannot check them (out of range, they read the last row).
 * @param w [v, d] of any element type
 * @param ids int32 [m]
 * @returns float32 [m, d]; gradient for w in w's own type
 */
export function gatherRows(w: tf.Tensor, ids: tf.Tensor): tf.Tensor2D {
  if (w.rank !== 2 || ids.rank !== 1) {
    throw new ArgumentError(
      `gatherRows: got w [${w.shape.join(',')}] and ids [${ids.shape.join(',')}], expected [v, d] and [m].`,
      {
        w: w.shape,
        ids: ids.shape,
      },
    );
  }
  return tf.engine().runKernel(GATHER_ROWS, { w, ids }) as tf.Tensor2D;
}

tf.registerKernel({
  kernelName: MATMUL_BF16,
  backendName: 'tensorflow',
  kernelFunc: ({ inputs }) => product(inputs['x'] as tf.Tensor, inputs['w'] as tf.Tensor, false, true),
});

tf.registerGradient({
  kernelName: MATMUL_BF16,
  inputsToSave: ['x', 'w'],
  gradFunc: (dy, saved) => {
    const [x, w] = saved as [tf.Tensor, tf.Tensor];
    const grad = dy as tf.Tensor;
    return {
      x: () => product(grad, w, false, false),
      w: () => tf.tidy(() => castTo(product(grad, x, true, false), trueDtype(w))),
    };
  },
});

tf.registerKernel({
  kernelName: GATHER_ROWS,
  backendName: 'tensorflow',
  kernelFunc: ({ inputs }) =>
    tf.tidy(() => {
      const [w, ids] = [inputs['w'] as tf.Tensor, inputs['ids'] as tf.Tensor];
      const rows = rawOp('GatherV2', [w, ids, tf.scalar(0, 'int32')], { batch_dims: attr.int(0) })[0]!;
      return trueDtype(rows) === 'float32' ? rows : cast(rows, 'float32');
    }),
});

tf.registerGradient({
  kernelName: GATHER_ROWS,
  inputsToSave: ['w', 'ids'],
  gradFunc: (dy, saved) => {
    const [w, ids] = saved as [tf.Tensor, tf.Tensor1D];
    return {
      w: () => tf.tidy(() => castTo(tf.unsortedSegmentSum(dy as tf.Tensor, ids, w.shape[0]!), trueDtype(w))),
      ids: () => tf.zerosLike(ids),
    };
  },
});

/**
 * Uniform random numbers in [minimum, maximum), a pure function of the seed (counter-based generator).
 * @param seed int32 [2]
 */
export function statelessUniform(shape: readonly number[], seed: tf.Tensor, minimum = 0, maximum = 1): tf.Tensor {
  return tf.tidy(() => {
    const unit = rawOp('StatelessRandomUniform', [tf.tensor1d([...shape], 'int32'), seed], {
      dtype: dtypeAttr('float32'),
    })[0]!;
    return minimum === 0 && maximum === 1 ? unit : tf.add(tf.mul(unit, maximum - minimum), minimum);
  });
}

/** Normal random numbers, a pure function of the seed. @param seed int32 [2] */
export function statelessNormal(shape: readonly number[], seed: tf.Tensor, mean = 0, deviation = 1): tf.Tensor {
  return tf.tidy(() => {
    const unit = rawOp('StatelessRandomNormal', [tf.tensor1d([...shape], 'int32'), seed], {
      dtype: dtypeAttr('float32'),
    })[0]!;
    return mean === 0 && deviation === 1 ? unit : tf.add(tf.mul(unit, deviation), mean);
  });
}

/** Bytes that a tensor takes on the device. */
export function trueBytes(x: tf.Tensor): number {
  return sizeOf(x.shape) * dtypeBytes(trueDtype(x));
}

export { attr };
