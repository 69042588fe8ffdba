/**
 * The input projection of a decoding step of one row on a GPU with all that follows it, as rowProduct() has it, with the convolution's
 * inputs moved on where they lie.
 */
import * as tf from '@tensorflow/tfjs';
import type { RowProductInputs } from './row_product.js';
import { type Moves, rowPtxFits, rowPtxKernel, rowPtxParameters, rowPtxTiling } from './row_ptx.js';
import type { RowFormat, RowProductSpec } from './row_spec.js';
import { runTritonAll, tritonRuns } from './triton.js';

/** How a matrix lies in memory. */
export interface StoredRows {
  format: RowFormat;
  /** Weights, or codes, scales and zeros. */
  tensors: readonly tf.Tensor[];
}

export interface RowStepInputs {
  /** [1, in] */
  x: tf.Tensor2D;
  /** Weight of the norm before it, [in]. */
  gamma: tf.Tensor;
  epsilon: number;
  matrix: StoredRows;
  /** Rows of the matrix. */
  out: number;
  activations: NonNullable<RowProductInputs['activations']>;
  /** [1]: of 0 the context stays as it is, and step sizes are 0. */
  mask?: tf.Tensor;
}

/** Tensors of a stored matrix by the names of a kernel's parameters. */
export function matrixInputs({ format, tensors }: StoredRows, prefix = ''): Record<string, tf.Tensor> {
  const names = format.kind === 'codes' ? ['codes', 'scale', 'zero'] : ['weights'];
  return Object.fromEntries(names.map((name, i) => [prefix + name, tensors[i]!]));
}

/** What follows an input projection, by the names of a kernel's parameters. */
export function activationTensors(after: RowStepInputs['activations']): Record<string, tf.Tensor | undefined> {
  return {
    place: tf.tensor1d([after.place], 'int32'),
    ...{ context: after.context, taps: after.weights, bias: after.bias, dt_bias: after.dtBias, A_log: after.ALog },
  };
}

/**
 * Runs the kernel. Traced code for a GPU alone, without a gradient.
 * @returns as rowProduct() with activations, and the context of all layers, moved on for this one; null where there is no kernel
 */
export function rowStep(inputs: RowStepInputs): { y: tf.Tensor2D; context: tf.Tensor4D } | null {
  const { x, gamma, epsilon, matrix, out, activations: after, mask } = inputs;
  const { first, channels, taps, heads, limit } = after;
  const spec: RowProductSpec = {
    ...{ out, inner: x.size, format: matrix.format, norm: { groups: 1, epsilon } },
    activations: { first, channels, taps, heads, limit, bias: after.bias !== undefined },
  };
  if (!tritonRuns() || !after.ALog || !rowPtxFits(spec)) return null;
  const moves: Moves = mask ? 'masked' : 'always';
  const given: Record<string, tf.Tensor | undefined> = {
    ...{ x, gamma, mask },
    ...matrixInputs(matrix),
    ...activationTensors(after),
  };
  const names = rowPtxParameters(spec, moves).map(([name]) => name);
  const results = names.indexOf('y');
  const [y, context] = runTritonAll(
    rowPtxKernel(spec, rowPtxTiling(spec), moves),
    names.slice(0, results).map((name) => given[name]!),
    [[1, out + channels + 2 * heads], after.context.shape],
    'float32',
    new Map([[1, names.indexOf('context')]]),
  );
  return { y: y as tf.Tensor2D, context: context as tf.Tensor4D };
}
