/** A layer of a decoding step of one row as one kernel of our own on a GPU (layer_ptx.ts). */
import * as tf from '@tensorflow/tfjs';
import {
  COUNTERS,
  LAYER_IN_PLACE,
  LAYER_OUTPUTS,
  layerFits,
  layerInputs,
  layerKernel,
  layerOutputs,
  type LayerSpec,
  layerTiling,
  projectedSize,
} from './layer_ptx.js';
import { trueDtype } from './ops.js';
import type { RowProductInputs } from './row_product.js';
import { activationTensors, matrixInputs, type StoredRows } from './row_step.js';
import { blocksAtOnce, runTritonAll } from './triton.js';

/** What a layer is applied to; all float32 but place, matrices and state. Letters as in ssd.ts. */
export interface LayerInputs {
  /** The stream, [1, d] */
  x: tf.Tensor2D;
  /** Of the norm before the input projection, [d], and of that before the output projection, [h·p], with its groups. */
  gamma: tf.Tensor;
  secondGamma: tf.Tensor;
  normGroups: number;
  epsilon: number;
  first: StoredRows;
  second: StoredRows;
  activations: NonNullable<RowProductInputs['activations']>;
  /** [h] */
  D: tf.Tensor;
  /** [1, h, p, n], float32 or bfloat16 */
  state: tf.Tensor;
  groups: number;
  /** [1]: of 0 state and context stay as they are. */
  mask?: tf.Tensor;
  /** Of the layer before; for the first one none. */
  counters: tf.Tensor | null;
}

export interface LayerResult {
  /** The stream after the layer, [1, d] */
  y: tf.Tensor2D;
  /** The state after it, and the context of all layers, moved on for this one: in place. */
  state: tf.Tensor4D;
  context: tf.Tensor4D;
  counters: tf.Tensor;
}

/**
 * Runs the kernel. Traced code for a GPU alone, without a gradient.
 * @returns null where the kernel cannot be written, or runs on no GPU, or on one whose number of multiprocessors is not known
 */
export function layerStep(inputs: LayerInputs): LayerResult | null {
  const { x, first, second, activations: after, state, mask } = inputs;
  const blocks = blocksAtOnce();
  const stateType = trueDtype(state);
  if (blocks === 0 || (stateType !== 'float32' && stateType !== 'bfloat16') || !after.ALog) return null;
  const [, heads, headDim, stateSize] = state.shape as [number, number, number, number];
  const spec: LayerSpec = {
    ...{ width: x.size, heads, headDim, groups: inputs.groups, stateSize, stateType },
    ...{ normGroups: inputs.normGroups, epsilon: inputs.epsilon },
    ...{ taps: after.taps, bias: after.bias !== undefined, limit: after.limit },
    ...{ first: first.format, second: second.format, masked: mask !== undefined, follow: false },
  };
  const tiling = layerTiling(spec, blocks);
  if (!layerFits(spec, tiling)) return null;
  const [names, kinds] = [layerInputs(spec).map(([name]) => name), layerOutputs(spec).map(([, dtype]) => dtype)];
  const given: Record<string, tf.Tensor | undefined> = {
    ...{ x, gamma: inputs.gamma, 'second.gamma': inputs.secondGamma, D: inputs.D, state, mask },
    ...matrixInputs(first),
    ...matrixInputs(second, 'second.'),
    ...activationTensors(after),
    counters: inputs.counters ?? tf.zeros([...COUNTERS], 'int32'),
  };
  const inner = heads * headDim;
  const shapes: Record<(typeof LAYER_OUTPUTS)[number], readonly number[]> = {
    y: [1, x.size],
    projected: [projectedSize(spec)],
    gated: [inner],
    moved: after.context.shape,
    next: state.shape,
    counted: COUNTERS,
  };
  const aliases = Object.entries(LAYER_IN_PLACE).map(
    ([output, input]) => [LAYER_OUTPUTS.indexOf(output as keyof typeof LAYER_IN_PLACE), names.indexOf(input)] as const,
  );
  const made = runTritonAll(
    layerKernel(spec, tiling),
    names.map((name) => given[name]!),
    LAYER_OUTPUTS.map((name) => shapes[name]),
    kinds,
    new Map(aliases),
  );
  const result = (name: (typeof LAYER_OUTPUTS)[number]): tf.Tensor => made[LAYER_OUTPUTS.indexOf(name)]!;
  return {
    y: result('y') as tf.Tensor2D,
    state: result('next') as tf.Tensor4D,
    context: result('moved') as tf.Tensor4D,
    counters: result('counted'),
  };
}
