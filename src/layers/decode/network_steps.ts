/** Decoding steps of one row or several that are prepared once, on WebAssembly or WebGPU, over the weights of a network. */
import {
  wasmSteps,
  type WasmSteps,
  wasmTakes,
  webGpuSteps,
  type WebGpuSteps,
  webGpuTakes,
} from '../../kernels/index.js';
import { isStored, tensor, type Weight, type Weights } from '../weights.js';
import type { StepBlock } from './few_rows_step.js';

export type { StepChoice } from '../../kernels/index.js';

export interface NetworkWeightsForSteps {
  readonly blocks: readonly StepBlock[];
  /** [v, d] */
  readonly embedding: Weight;
  readonly head: Weight;
  /** Of the last norm, [d] */
  readonly gamma: Weights[string];
  readonly epsilon: number;
}

/** The weight as kernels take it; null for a form that they do not know (a base with an adapter). */
function plain(weight: Weight) {
  if (!isStored(weight)) return weight;
  return weight.packed?.() ?? null;
}

/** Bytes of states that steps of several rows take places for at most; of more rows the layers' code has them once. */
const MOST_STATES = 2 ** 30;

/** Null on other backends, for weights in a form that has no kernels, and for too many rows. */
export function networkSteps(
  { blocks, embedding, head, gamma, epsilon }: NetworkWeightsForSteps,
  batch: number,
): WebGpuSteps | WasmSteps | null {
  if (!webGpuTakes(16, 1) && !wasmTakes(16, 1)) return null; // no other backend has steps
  const [{ spec }] = blocks as [StepBlock];
  if (batch > 1 && 4 * batch * blocks.length * spec.numHeads * spec.headDim * spec.stateSize > MOST_STATES) return null;
  const [rows, scores] = [plain(embedding), plain(head)];
  const layers = [];
  for (const { spec: own, gamma: before, weights } of blocks) {
    const [inProj, outProj] = [plain(weights['in_proj.weight']!), plain(weights['out_proj.weight']!)];
    if (!inProj || !outProj) return null;
    layers.push({
      ...{ gamma: before, inProj, outProj, taps: tensor(weights, 'conv1d.weight') },
      ...(own.useBias && { inBias: tensor(weights, 'in_proj.bias'), outBias: tensor(weights, 'out_proj.bias') }),
      ...(own.useConvBias && { bias: tensor(weights, 'conv1d.bias') }),
      ...{ dtBias: tensor(weights, 'dt_bias'), aLog: tensor(weights, 'A_log'), d: tensor(weights, 'D') },
      normGamma: tensor(weights, 'norm.weight'),
    });
  }
  if (!rows || !scores || isStored(gamma)) return null;
  const sizes = {
    ...{ hidden: spec.hiddenSize, heads: spec.numHeads, headDim: spec.headDim, groups: spec.nGroups },
    ...{
      stateSize: spec.stateSize,
      taps: spec.convKernel,
      convolutionBias: spec.useConvBias,
      limit: spec.timeStepLimit,
    },
    ...{ vocabulary: head.shape[0], epsilon, normGroups: spec.normGroups === 'full' ? 1 : spec.nGroups },
  };
  const tensors = { embedding: rows, head: scores, gamma, layers };
  return webGpuSteps(sizes, tensors, batch) ?? wasmSteps(sizes, tensors, batch);
}
