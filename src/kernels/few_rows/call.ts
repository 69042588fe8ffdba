/**
 * Products of a matrix of bfloat16 with several rows at a time, on a GPU, and what follows them, as kernels of our own (ptx.ts). Of more
 * than MOST_ROWS rows the product is XLA's, and what follows is one kernel.
 */
import * as tf from '@tensorflow/tfjs';
import { type EpilogueInputs, epilogueSpecOf, epilogueValues } from '../epilogue/inputs.js';
import { fewRowsKernel } from './ptx.js';
import type { FewRowsSpec } from './spec.js';
import { fewRowsFits, fewRowsTiling, MOST_ROWS, squarePartials } from './tiling.js';
import { attr, castFloat32, castTo, rawOp } from '../../jit/index.js';
import { runTritonAll, tritonRuns } from '../../jit/custom_call/triton.js';
import type { Dtype } from '../../jit/types.js';

/** Rows that a product takes. */
export interface FewRows {
  /** Values, or times the weight of their norm, bfloat16: [inner/32, rows, 32], of more than MOST_ROWS rows [rows, inner]. */
  values: tf.Tensor;
  /** Sums of the squares of the values, [rows, partials], whose sum is a row's; where they are to be normed. */
  squares?: tf.Tensor2D;
}

/** What a product is applied to; float32 but for rows and place. */
export interface FewRowsInputs {
  rows: FewRows;
  epsilon: number;
  epilogue?: EpilogueInputs & { ALog: tf.Tensor };
  /** [rows, out], and the weight of the norm that follows, [out]. */
  residual?: { stream: tf.Tensor; gamma: tf.Tensor };
}

export interface FewRowsResult {
  /** [rows, out], with epilogue [rows, out + heads]: silu(z) | xBC after the convolution | dt | decays */
  y: tf.Tensor2D;
  /** With epilogue: the context, moved on for this layer. */
  context?: tf.Tensor4D;
  /** With a residual: y as the next product takes it. */
  next?: FewRows;
}

/** x [rows, size] as a product takes it. */
export function packRows(x: tf.Tensor): tf.Tensor {
  const [rows, size] = x.shape as [number, number];
  if (rows > MOST_ROWS) return castTo(x, 'bfloat16');
  return castTo(tf.transpose(tf.reshape(x, [rows, size / 32, 32]), [1, 0, 2]), 'bfloat16');
}

/** How packRows() puts so many rows. */
export const rowLayout = (rows: number): 'blocked' | 'row_major' => (rows > MOST_ROWS ? 'row_major' : 'blocked');

/** y times the factor of its rows' norm, if there is one. */
function scaled(y: tf.Tensor2D, { norm, inner }: FewRowsSpec, squares?: tf.Tensor2D): tf.Tensor2D {
  if (!norm || !squares) return y;
  const mean = tf.mul(tf.sum(squares, 1, true), 1 / inner);
  return tf.mul(y, tf.rsqrt(tf.add(mean, norm.epsilon)));
}

/**
 * The product with what follows it. Traced code for a GPU alone, without a gradient.
 * @param shape of the matrix, [out, inner] @param matrix bfloat16
 * @returns null where the kernel cannot be written, or runs on no GPU
 */
export function fewRowsProduct(
  shape: readonly number[],
  inputs: FewRowsInputs,
  matrix: tf.Tensor,
): FewRowsResult | null {
  const { rows: given, epsilon, epilogue: after, residual } = inputs;
  const [out, inner] = shape as [number, number];
  const own = given.values.rank === 3;
  const rows = given.values.shape[own ? 1 : 0]!;
  const spec: FewRowsSpec = {
    ...{ rows, out, inner, epilogueOnly: !own },
    norm: given.squares && { partials: given.squares.shape[1], epsilon },
    residual: residual !== undefined,
    ...(after && {
      epilogue: {
        ...epilogueSpecOf(after),
        layers: after.context.shape[1]!,
        masked: after.mask !== undefined,
      },
    }),
  };
  const tiling = fewRowsTiling(spec);
  if (!tritonRuns() || !fewRowsFits(spec, tiling)) return null;
  const flags = { transpose_a: attr.bool(false), transpose_b: attr.bool(true) };
  const raw = own ? null : rawOp('MatMul', [given.values, matrix], flags)[0]!;
  if (raw && !after && !residual) return { y: scaled(castFloat32(raw) as tf.Tensor2D, spec, given.squares) };
  const all = [
    ...(raw ? [raw] : [given.values, matrix]),
    given.squares,
    ...(after ? epilogueValues(after) : []),
    residual?.stream,
    residual?.gamma,
  ];
  const present = all.filter((t) => t !== undefined);
  const results: [readonly number[], Dtype][] = [[[rows, out + (after?.heads ?? 0)], 'float32']];
  const aliases = new Map<number, number>();
  if (after) {
    aliases.set(results.length, present.indexOf(after.context));
    results.push([after.context.shape, 'float32']);
  }
  if (residual)
    results.push(
      [own ? [out / 32, rows, 32] : [rows, out], 'bfloat16'],
      [[rows, squarePartials(spec, tiling)], 'float32'],
    );
  const made = runTritonAll(
    fewRowsKernel(spec, tiling),
    present,
    results.map(([dims]) => dims),
    results.map(([, dtype]) => dtype),
    aliases,
  );
  return {
    y: made[0] as tf.Tensor2D,
    ...(after && { context: made[1] as tf.Tensor4D }),
    ...(residual && { next: { values: made[after ? 2 : 1]!, squares: made[after ? 3 : 2] as tf.Tensor2D } }),
  };
}
