/**
 * Which way a layer takes for the tokens it is given: the one place that decides it. Network, block and mixer ask here, each of them
 * for its own part of the way.
 *
 * | path | what runs | decided by | file |
 * |---|---|---|---|
 * | `layer` | one kernel a layer, for up to 64 rows on a CPU | the network, for all layers together | layer_step.ts |
 * | `few_rows` | three to five kernels a layer for several rows, which hand the stream on in a form of their own | the network, for all layers together | few_rows_step.ts |
 * | `one_row` | the two projections of one row as kernels with all that is around them, and the recurrence between, on a GPU | the block | one_row_step.ts |
 * | `kernels` | the layer's own products, and kernels for what is between them | the mixer | kernels_step.ts |
 * | `merged` | the layer's ops, small work merged into few elementwise passes, for GPUs | the mixer | ops_step.ts |
 * | `plain` | the layer's ops | the mixer | ops_step.ts |
 * | `scan` | the chunk scan: several tokens, or one without a state | the mixer | ../mixer.ts |
 */
import type { MixerState } from '../mixer.js';
import type { MixerSpec } from '../mixer_spec.js';
import { isStored, type StoredMatrix, type Weights } from '../weights.js';

export type StepPath = 'layer' | 'few_rows' | 'one_row' | 'kernels' | 'merged' | 'plain' | 'scan';

/** What a layer is given. */
export interface StepRequest {
  /** b */
  rows: number;
  /** t */
  tokens: number;
  state?: MixerState;
  /** See MixerOptions.mergeStep. */
  mergeStep?: boolean;
}

/** Whether both projections are stored in a form that has such kernels. */
function projectionsHave(weights: Weights, kernel: keyof StoredMatrix & ('fused' | 'batch' | 'host')): boolean {
  return ['in_proj.weight', 'out_proj.weight'].every((name) => {
    const weight = weights[name];
    return weight !== undefined && isStored(weight) && weight[kernel] !== undefined;
  });
}

/**
 * The paths that a layer may take, best first; the last of them always can be taken.
 * @param weights of the mixer
 */
export function stepPaths(
  spec: MixerSpec,
  weights: Weights,
  { rows, tokens, state, mergeStep }: StepRequest,
): readonly StepPath[] {
  if (tokens !== 1 || !state) return ['scan'];
  // kernels find the convolution's context among those of all layers, and know no biases of projections
  const forKernels = state.context !== undefined && !spec.useBias;
  const paths: StepPath[] = [];
  if (mergeStep !== true && mergeStep !== false && forKernels && projectionsHave(weights, 'host')) paths.push('layer');
  if (mergeStep && rows > 1 && forKernels && spec.hiddenSize % 32 === 0 && projectionsHave(weights, 'batch'))
    paths.push('few_rows');
  if (mergeStep !== false && rows === 1 && forKernels && projectionsHave(weights, 'fused')) paths.push('one_row');
  if (mergeStep && state.context) paths.push('kernels');
  if (mergeStep) paths.push('merged');
  return [...paths, 'plain'];
}

/**
 * What the first of the paths gives that gives anything: one gives null where there is no kernel for its sizes or device.
 * @param ways of the asking part; paths that it has no way for are another's
 */
export function takePath<T>(
  paths: readonly StepPath[],
  ways: Partial<Record<StepPath, (() => T | null) | false>>,
): T | null {
  for (const path of paths) {
    const way = ways[path];
    const out = way ? way() : null;
    if (out !== null) return out;
  }
  return null;
}
