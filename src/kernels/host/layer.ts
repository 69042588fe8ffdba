/** A decoding step of a layer on a CPU by one kernel of our own, called from programs that XLA compiles. */
import type * as tf from '@tensorflow/tfjs';
import { trueDtype } from '../../jit/index.js';
import { hasHostKernel, runHostKernelAll } from '../../jit/custom_call/host_call.js';
import { compilesWithXla } from '../../jit/trace/backend.js';
import type { TiledMatrix } from './call.js';
import { LAYER_STEP, operandsOf, packNumbers } from './spec.js';

/** Instructions that the kernel is written in, the fastest first. */
export const LAYER_INSTRUCTIONS = ['avx512', 'avx2'] as const;
export type LayerInstructions = (typeof LAYER_INSTRUCTIONS)[number];

/** Most rows that it takes. */
const MOST_ROWS = 64;

/** A matrix [out, in] as kernels of CPUs take it: weights in float32 or bfloat16, bfloat16 that rounds what it meets, or codes of int4. */
export type HostMatrix = tf.Tensor | RoundingMatrix | TiledMatrix;

/** A bfloat16 matrix whose other operand is rounded to bfloat16. */
export interface RoundingMatrix {
  readonly rounding: tf.Tensor;
}

export interface LayerStepInputs {
  /** The stream, [rows, hidden] */
  x: tf.Tensor;
  /** [rows, heads, p, n], float32 or bfloat16 */
  state: tf.Tensor;
  /** Contexts of all layers, [rows, layers, taps-1, channels], and which this is */
  context: { layers: tf.Tensor4D; layer: number };
  /** [rows], 0 for rows that keep their state */
  mask?: tf.Tensor;
  heads: number;
  headDim: number;
  groups: number;
  stateSize: number;
  normGroups: number;
  epsilon: number;
  limit: readonly [number, number];
  /** Weights, as a layer has them */
  gamma: tf.Tensor;
  inProj: HostMatrix;
  taps: tf.Tensor;
  bias?: tf.Tensor;
  dtBias: tf.Tensor;
  aLog: tf.Tensor;
  d: tf.Tensor;
  normGamma: tf.Tensor;
  outProj: HostMatrix;
}

/** What follows from them, states and contexts in the memory of those before where nothing else needs that. */
export interface LayerStepResult {
  y: tf.Tensor2D;
  state: tf.Tensor;
  contexts: tf.Tensor4D;
}

/** The forms of the kernel that run here, the fastest first; none on GPUs and on processors without AVX2. */
export function layerInstructions(): LayerInstructions[] {
  return LAYER_INSTRUCTIONS.filter((form) => hasHostKernel(`layer_step_${form}`));
}

const isTiled = (matrix: HostMatrix): matrix is TiledMatrix => 'codes' in matrix;

/** A matrix as operands and numbers of the call. */
function stored(matrix: HostMatrix): {
  operands: { matrix: tf.Tensor; scale?: tf.Tensor; zero?: tf.Tensor };
  int4: boolean;
  bf16: boolean;
  group: number;
  rounded: boolean;
} {
  if (isTiled(matrix)) {
    const { codes, scale, zero, bf16Levels, groupSize } = matrix;
    return { operands: { matrix: codes, scale, zero }, int4: true, bf16: bf16Levels, group: groupSize, rounded: false };
  }
  const rounded = 'rounding' in matrix;
  const weights = rounded ? matrix.rounding : matrix;
  return { operands: { matrix: weights }, int4: false, bf16: trueDtype(weights) === 'bfloat16', group: 0, rounded };
}

/** Runs the kernel of these instructions. Traced code. */
export function layerStepBy(instructions: LayerInstructions, inputs: LayerStepInputs): LayerStepResult {
  const { x, state, context, mask, heads, headDim, groups, stateSize, normGroups, epsilon, limit } = inputs;
  const [rows, hidden] = x.shape as [number, number];
  const [first, second] = [stored(inputs.inProj), stored(inputs.outProj)];
  const [, layers, kept, channels] = context.layers.shape;
  const numbers = {
    ...{ rows, hidden, heads, headDim, groups, stateSize, normGroups, epsilon },
    taps: kept + 1,
    contextRow: layers * kept * channels,
    place: context.layer * kept * channels,
    ...{ low: limit[0], high: limit[1] },
    hasMask: mask !== undefined,
    hasBias: inputs.bias !== undefined,
    bf16State: trueDtype(state) === 'bfloat16',
    ...{ inInt4: first.int4, inBf16: first.bf16, inGroup: first.group },
    ...{ outInt4: second.int4, outBf16: second.bf16, outGroup: second.group },
    rounded: first.rounded || second.rounded,
  };
  const { gamma, taps, bias, dtBias, aLog, d, normGamma } = inputs;
  const operands = operandsOf<typeof LAYER_STEP, tf.Tensor>(LAYER_STEP, numbers, {
    ...{ x, state, context: context.layers, mask, gamma, taps, bias, dtBias, aLog, d, normGamma },
    ...{ inMatrix: first.operands.matrix, inScale: first.operands.scale, inZero: first.operands.zero },
    ...{ outMatrix: second.operands.matrix, outScale: second.operands.scale, outZero: second.operands.zero },
  });
  const [y, next, contexts] = runHostKernelAll(
    `layer_step_${instructions}`,
    packNumbers(LAYER_STEP, numbers),
    operands,
    [
      { shape: [rows, hidden], dtype: 'float32' },
      { shape: state.shape, dtype: trueDtype(state) },
      { shape: context.layers.shape, dtype: 'float32' },
    ],
    // of x, state, context: the order of the operands
    new Map([
      [1, 1],
      [2, 2],
    ]),
  );
  return { y: y as tf.Tensor2D, state: next!, contexts: contexts as tf.Tensor4D };
}

/** A step of a layer in one kernel. Traced code, without a gradient. Null outside code that XLA compiles and where there is no kernel. */
export function layerStep(inputs: LayerStepInputs): LayerStepResult | null {
  const instructions = compilesWithXla() ? layerInstructions()[0] : undefined;
  const { x, heads, headDim, groups, normGroups } = inputs;
  if (!instructions || x.shape[0] > MOST_ROWS) return null;
  if (heads % groups !== 0 || heads % normGroups !== 0 || headDim < 1) return null;
  return layerStepBy(instructions, inputs);
}
