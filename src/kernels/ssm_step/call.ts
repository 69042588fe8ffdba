/** The recurrence of a decoding step of several rows by a kernel of our own in traced code. */
import type * as tf from '@tensorflow/tfjs';
import { trueDtype } from '../../jit/index.js';
import { runTritonAll, tritonRuns } from '../../jit/custom_call/triton.js';
import type { Dtype } from '../../jit/types.js';
import { ssmStepKernel } from './ptx.js';
import { type Columns, ssmStepBlocks, ssmStepFits, type SsmStepSpec } from './spec.js';

/** What the kernel is applied to. */
export interface SsmStepInputs extends Pick<SsmStepSpec, 'heads' | 'headDim' | 'groups' | 'stateSize'> {
  /** [rows, heads, p, n], float32 or bfloat16 */
  state: tf.Tensor;
  /** [rows, …] and where x | B | C | dt | decay begin in a row */
  step: { values: tf.Tensor; offset: number };
  /** [rows, …] and where z begins in a row */
  gate: { values: tf.Tensor; offset: number; activated: boolean };
  /** [heads] */
  D: tf.Tensor;
  /** Weight of one norm over all channels, [heads·p], and how v·gamma is to lie. */
  norm?: { gamma: tf.Tensor; layout: 'blocked' | 'row_major' };
}

export interface SsmStepResult {
  /** The state after, in the type and, where nothing else needs that, the memory of the one before. */
  state: tf.Tensor;
  /** See SsmStepSpec.norm. */
  v: tf.Tensor;
  /** [rows, partial sums]; with a norm alone. */
  squares?: tf.Tensor2D;
}

/** Runs the kernel. Traced code for a GPU alone, without a gradient. @returns null where there is no kernel */
export function ssmStep(inputs: SsmStepInputs): SsmStepResult | null {
  const { state, step, gate, D, norm, heads, headDim, groups, stateSize } = inputs;
  const rows = state.shape[0];
  const dtype = trueDtype(state);
  if (!tritonRuns() || (dtype !== 'float32' && dtype !== 'bfloat16')) return null;
  const columns = ({ values, offset }: { values: tf.Tensor; offset: number }): Columns => ({
    stride: values.shape[1]!,
    offset,
  });
  const spec: SsmStepSpec = {
    ...{ rows, heads, headDim, groups, stateSize, dtype },
    step: columns(step),
    gate: { ...columns(gate), activated: gate.activated },
    norm: norm?.layout ?? null,
  };
  if (!ssmStepFits(spec)) return null;
  const inner = heads * headDim;
  const given = [state, step.values, gate.values, D, ...(norm ? [norm.gamma] : [])];
  const size = norm?.layout === 'blocked' ? [inner / 32, rows, 32] : [rows, inner];
  const shapes = [state.shape, size, [rows, ssmStepBlocks(spec)]];
  const types: Dtype[] = [dtype, norm ? 'bfloat16' : 'float32', 'float32'];
  const count = norm ? 3 : 2;
  const results = runTritonAll(
    ssmStepKernel(spec),
    given,
    shapes.slice(0, count),
    types.slice(0, count),
    new Map([[0, 0]]),
  );
  return { state: results[0]!, v: results[1]!, ...(norm && { squares: results[2] as tf.Tensor2D }) };
}
