/** Products of a matrix of bfloat16 with a few rows at a time, on a GPU, as kernels of our own (batch_ptx.ts). */
import * as tf from '@tensorflow/tfjs';
import { batchKernel } from './batch_ptx.js';
import {
  batchParts,
  batchProductFits,
  type BatchProductSpec,
  batchTiling,
  COUNTERS,
  gridOf,
  partialOf,
} from './batch_spec.js';
import type { Activations } from './row_spec.js';
import { runTritonAll, tritonRuns } from './triton.js';
import type { Dtype } from './types.js';

/** Rows that a product takes. */
export interface BatchRows {
  /** [inner/32, rows, 32], bfloat16: values, or times the weight of their norm */
  pieces: tf.Tensor;
  /** Sums of the squares of the values, [rows, parts], whose sum is a row's; where they are to be normed. */
  squares?: tf.Tensor2D;
}

/** What a product is applied to; float32 but for pieces and place. */
export interface BatchProductInputs {
  rows: BatchRows;
  epsilon: number;
  /** Zeros, see batchCounters(); without them the kernel has its own, which are made for it. */
  counters?: tf.Tensor1D;
  activations?: Omit<Activations, 'bias'> & {
    /** Raw inputs before, of all layers, [rows, layers, taps-1, channels], and where this layer's begin in a row. */
    context: tf.Tensor;
    place: number;
    /** [channels, 1, taps] */
    weights: tf.Tensor;
    /** [channels] */
    bias?: tf.Tensor;
    /** [heads] */
    dtBias: tf.Tensor;
    /** [heads] */
    ALog: tf.Tensor;
    /** [rows], of 0 and 1: 0 for rows that keep their context */
    mask?: tf.Tensor;
  };
  /** [rows, out], and the weight of the norm that follows, [out]. */
  residual?: { stream: tf.Tensor; gamma: tf.Tensor };
}

export interface BatchProductResult {
  /** [rows, out], with activations [rows, out + heads]: silu(z) | xBC after the convolution | dt | decays */
  y: tf.Tensor2D;
  /** With activations: the context, moved on for this layer. */
  context?: tf.Tensor4D;
  /** With a residual: y as the next product takes it. */
  next?: BatchRows;
  /** Those that were given: zeros again. */
  counters?: tf.Tensor1D;
}

/** What blocks of a kernel count with that share their work: made once, they are handed on from kernel to kernel. int32 */
export function batchCounters(): tf.Tensor1D {
  return tf.zeros([COUNTERS], 'int32');
}

/**
 * The product with what follows it. Traced code for a GPU alone, without a gradient.
 * @param shape of the matrix, [out, inner] @param matrix bfloat16
 * @returns null where the kernel cannot be written, or runs on no GPU
 */
export function batchProduct(
  shape: readonly number[],
  inputs: BatchProductInputs,
  matrix: tf.Tensor,
): BatchProductResult | null {
  const { rows: given, epsilon, activations: after, residual } = inputs;
  const [out, inner] = shape as [number, number];
  const rows = given.pieces.shape[1]!;
  const spec: BatchProductSpec = {
    ...{ rows, out, inner },
    norm: given.squares && { parts: given.squares.shape[1], epsilon },
    residual: residual !== undefined,
    ...(after && {
      activations: {
        first: after.first,
        channels: after.channels,
        taps: after.taps,
        heads: after.heads,
        limit: after.limit,
        bias: after.bias !== undefined,
        layers: after.context.shape[1]!,
        masked: after.mask !== undefined,
      },
    }),
  };
  const tiling = batchTiling(spec);
  if (!tritonRuns() || !batchProductFits(spec, tiling)) return null;
  const counters = tiling.splits > 1 ? (inputs.counters ?? batchCounters()) : undefined;
  const behind = after && [
    tf.tensor1d([after.place], 'int32'),
    after.context,
    after.weights,
    after.bias,
    after.dtBias,
    after.ALog,
    after.mask,
  ];
  const all = [given.pieces, matrix, given.squares, ...(behind ?? []), residual?.stream, residual?.gamma, counters];
  const present = all.filter((t) => t !== undefined);
  const results: [readonly number[], Dtype][] = [[[rows, out + (after?.heads ?? 0)], 'float32']];
  const aliases = new Map<number, number>();
  if (after) {
    aliases.set(results.length, present.indexOf(after.context));
    results.push([after.context.shape, 'float32']);
  }
  if (residual) results.push([[out / 32, rows, 32], 'bfloat16'], [[rows, batchParts(spec, tiling)], 'float32']);
  if (counters) {
    aliases.set(results.length, present.indexOf(counters));
    results.push([counters.shape, 'int32'], [[gridOf(tiling), partialOf(spec, tiling)], 'float32']);
  }
  const made = runTritonAll(
    batchKernel(spec, tiling),
    present,
    results.map(([dims]) => dims),
    results.map(([, dtype]) => dtype),
    aliases,
  );
  return {
    y: made[0] as tf.Tensor2D,
    counters: counters ? (made.at(-2) as tf.Tensor1D) : inputs.counters,
    ...(after && { context: made[1] as tf.Tensor4D }),
    ...(residual && { next: { pieces: made[after ? 2 : 1]!, squares: made[after ? 3 : 2] as tf.Tensor2D } }),
  };
}
