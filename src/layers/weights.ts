/**
 * Weights as the layers see them. A layer's maths is written over a `Weights` record, so the same code runs with the
 * variables of a tf.layers layer, with the symbolic variables of a compiled program, and with matrices that are stored
 * otherwise (bfloat16, packed int4, a base with a LoRA adapter).
 */
import * as tf from '@tensorflow/tfjs';
import {
  type FewRowsInputs,
  type FewRowsResult,
  type HostMatrix,
  type OneRowInputs,
  type PackedMatrix,
  wasmDense,
} from '../kernels/index.js';
import type { ArrayPart } from '../base/array_parts.js';
import type { WeightStorage } from './storage.js';

/** A linear map [out, in] that is not a float32 tensor but knows how to act like one. */
export interface StoredMatrix {
  /** [out, in], as in the checkpoint */
  readonly shape: readonly number[];
  /** x [m, in] -> x·Wᵀ [m, out], float32 */
  apply(x: tf.Tensor2D): tf.Tensor2D;
  /** Rows ids [m] (int32) of W -> [m, in], float32: an embedding lookup */
  rows(ids: tf.Tensor1D): tf.Tensor2D;
  /**
   * W·(norm(x)·gamma) where the norm is over channels of which others have some: of a part of a matrix (parallel.ts).
   * @param x [m, in] @returns [m, out]
   */
  normed?(x: tf.Tensor2D, gamma: tf.Tensor, epsilon: number): tf.Tensor2D;
  /**
   * Whether its products are sums over devices, each of which has some of the inputs (parallel.ts). What a device alone multiplies its inputs by,
   * such as the factor of a norm of its own channels, must be in them before.
   */
  readonly summed?: boolean;
  /**
   * residual + W·(norm(x)·gamma) of one row in one kernel, [1, out]; null where the device has no such kernel. Traced code.
   */
  fused?(input: OneRowInputs): tf.Tensor2D | null;
  /** The product with a few rows and what is around it as one kernel; null where the device has no such kernel. Traced code. */
  batch?(input: FewRowsInputs): FewRowsResult | null;
  /** What kernels of a CPU take of it, which do a layer's step as a whole. Traced code. */
  readonly host?: HostMatrix;
  /** As kernels of the backend in use read it (WebAssembly, WebGPU); null where there are none. */
  packed?(): PackedMatrix | null;
  /** What it is made of, where that may change (an adapter's factors, in training): programs made from it then hold no longer. */
  readonly tensors?: readonly tf.Tensor[];
  /** Gives back what it holds in a backend's memory; absent on forms that hold nothing of their own. */
  dispose?(): void;
  /** A part of it, by outputs (axis 0) or inputs (axis 1). @throws ArgumentError where it cannot be cut there */
  part?(part: ArrayPart): StoredMatrix;
  /** How this matrix is kept in a compiled program; absent on forms that only exist while tracing. */
  storage?(): WeightStorage;
}

export type Weight = tf.Tensor | StoredMatrix;

/** Weights by the name they have within their layer, for example 'in_proj.weight'. */
export type Weights = Readonly<Record<string, Weight>>;

/** How a fresh weight is filled. */
export type WeightInit =
  | { kind: 'zeros' | 'ones' }
  | { kind: 'normal'; std: number }
  | { kind: 'uniform'; low: number; high: number }
  | { kind: 'values'; values: (size: number) => Float32Array };

/**
 * What a weight is to its model. Projections (the linear maps within blocks), the embedding's table and the head are the matrices
 * [out, in] that dominate its size: they are what is stored in bfloat16 or quantised, and what takes adapters. All else is small:
 * norms, biases, convolutions, parameters of the state space.
 */
export type WeightRole = 'projection' | 'embedding' | 'head' | 'small';

/** A weight described before it exists. */
export interface WeightSpec {
  name: string;
  shape: number[];
  role: WeightRole;
  init: WeightInit;
}

/** True for the matrices that dominate a model's size: projections, embedding, head. */
export function isMatrix({ role }: Pick<WeightSpec, 'role'>): boolean {
  return role !== 'small';
}

export function isStored(w: Weight): w is StoredMatrix {
  return !(w instanceof tf.Tensor);
}

/** The weight as a tensor; for those that are never stored otherwise (norms, convolution, A_log, D, dt_bias, biases). */
export function tensor(weights: Weights, name: string): tf.Tensor {
  const w = weights[name];
  if (w === undefined || isStored(w)) throw new TypeError(`Weight '${name}' must be a float32 tensor of the layer`);
  return w;
}

/**
 * x·Wᵀ + bias over the last axis. The product is flattened to two axes: tfjs' matMul has no right gradient for
 * broadcast batch axes.
 * @param x [..., in] @param w [out, in] @param bias [out]
 * @returns [..., out]
 */
export function linear(x: tf.Tensor, w: Weight, bias?: tf.Tensor): tf.Tensor {
  const [out, inner] = w.shape as [number, number];
  return tf.tidy(() => {
    const flat = tf.reshape(x, [-1, inner]) as tf.Tensor2D;
    const dense = (m: tf.Tensor2D): tf.Tensor => wasmDense(flat, m) ?? tf.matMul(flat, m, false, true);
    const product = isStored(w) ? w.apply(flat) : dense(w as tf.Tensor2D);
    const y = bias ? tf.add(product, bias) : product;
    return tf.reshape(y, [...x.shape.slice(0, -1), out]);
  });
}

/**
 * Embedding lookup.
 * @param ids int32 [...] @param w [v, d]
 * @returns float32 [..., d]
 */
export function lookup(ids: tf.Tensor, w: Weight): tf.Tensor {
  return tf.tidy(() => {
    const flat = tf.reshape(ids, [-1]) as tf.Tensor1D;
    const rows = isStored(w) ? w.rows(flat) : tf.gather(w, flat);
    return tf.reshape(rows, [...ids.shape, w.shape[1]!]);
  });
}
