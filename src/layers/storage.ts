/**
 * How a weight is kept in a compiled program: which program variables hold it, and the Weight they make when the layers
 * are traced. Each stored form (float32, bfloat16, packed integers, a base with an adapter) is one implementation.
 */
import type * as tf from '@tensorflow/tfjs';
import { gatherRows, matMulStored, type VariableSpec } from '../jit/index.js';
import { denseInstructions, denseProduct, fewRowsProduct, layerInstructions, oneRowProduct } from '../kernels/index.js';
import type { Weight } from './weights.js';

/** Bytes of a weight in one stored type, asked for when their turn comes. */
export type WeightBytes = () => ArrayBufferView | Promise<ArrayBufferView>;

/** Bytes of a weight that is a variable of its own. */
export type VariableBytes = NonNullable<Exclude<VariableSpec['init'], 'zeros'>>;

export interface WeightStorage {
  /** Program variables by suffix; '' for a weight that is one variable. The variable's name is weight name + suffix. */
  readonly variables: Readonly<Record<string, VariableSpec>>;
  /**
   * What `weight` computes, in words, where that follows from them and the variables' shapes and types: programs of equal forms
   * have equal graphs, which may be kept. Without it no graph is.
   */
  readonly form?: string;
  /** Its kernels take other weights of the model whole, too: such as are part of a larger variable would be copied at every use. */
  readonly takesWhole?: boolean;
  /** The weight over the traced variables of the same suffixes. */
  readonly weight: (vars: Readonly<Record<string, tf.Tensor>>) => Weight;
}

/** A float32 tensor: norms, convolutions, SSM parameters. */
export function float32Storage(shape: readonly number[], init?: WeightBytes): WeightStorage {
  return { form: 'float32', variables: { '': { shape, dtype: 'float32', init } }, weight: (vars) => vars['']! };
}

/** Of CPUs, in words: graphs differ by them. */
const kernels = (): string =>
  [...denseInstructions().slice(0, 1), ...layerInstructions().slice(0, 1)].map((form) => ` by ${form}`).join('');

/** A matrix [out, in] in float32. */
export function float32Matrix(shape: readonly number[], init?: VariableBytes): WeightStorage {
  return {
    form: `float32 matrix${kernels()}`,
    takesWhole: layerInstructions().length > 0,
    variables: { '': { shape, dtype: 'float32', init } },
    weight: (vars) => ({
      shape,
      apply: (x) => denseProduct(x, vars['']!) ?? matMulStored(x, vars['']!),
      rows: (ids) => gatherRows(vars['']!, ids),
      host: vars['']!,
      fused: (input) => oneRowProduct(shape, { kind: 'float32' }, input, [vars['']!]),
    }),
  };
}

/**
 * A matrix [out, in] in bfloat16. A CPU widens it inside the product, so that all arithmetic is float32. A GPU multiplies
 * in bfloat16: activations are rounded for the product, and its result is.
 * @param rounds whether a CPU rounds what few rows meet it with to bfloat16, too; sums stay float32
 */
export function bfloat16Storage(shape: readonly number[], init?: VariableBytes, rounds = false): WeightStorage {
  return {
    form: `bfloat16 matrix${kernels()}${rounds ? ', rounding' : ''}`,
    takesWhole: layerInstructions().length > 0,
    variables: { '': { shape, dtype: 'bfloat16', init } },
    weight: (vars) => ({
      shape,
      apply: (x) => denseProduct(x, vars['']!, rounds) ?? matMulStored(x, vars['']!),
      rows: (ids) => gatherRows(vars['']!, ids),
      host: rounds ? { rounding: vars['']! } : vars['']!,
      fused: (input) => oneRowProduct(shape, { kind: 'bfloat16' }, input, [vars['']!]),
      batch: (input) => fewRowsProduct(shape, input, vars['']!),
    }),
  };
}
