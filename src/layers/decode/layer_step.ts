/** A decoding step on a CPU as one kernel a layer, for as many rows as layerStep() takes. States and contexts are updated in place. */
import * as tf from '@tensorflow/tfjs';
import { layerStep } from '../../kernels/index.js';
import type { MixerState } from '../mixer.js';
import { isStored, tensor } from '../weights.js';
import { stepPaths } from './choose.js';
import type { NetworkStep, StepBlock } from './few_rows_step.js';
import { storedState } from './kernel_inputs.js';

/**
 * All blocks of a network. Null where they do not all have such kernels.
 * @param embedded [b, 1, d]
 * @returns the stream [b, 1, d] and states
 */
export function layerSteps(
  blocks: readonly StepBlock[],
  embedded: tf.Tensor3D,
  { states, mask, mergeStep }: NetworkStep,
): { h: tf.Tensor3D; states: MixerState[] } | null {
  const [b, t, d] = embedded.shape;
  const all = blocks.every(({ spec, weights }, i) =>
    stepPaths(spec, weights, { rows: b, tokens: t, state: states?.[i], mergeStep }).includes('layer'),
  );
  let contexts = states?.[0]?.context?.layers;
  if (!all || !states || !contexts) return null;
  let stream: tf.Tensor = tf.reshape(embedded, [b, d]);
  const after: MixerState[] = [];
  for (const [layer, { spec, gamma, weights }] of blocks.entries()) {
    const { numHeads: heads, headDim, nGroups: groups, stateSize } = spec;
    const [first, second] = [weights['in_proj.weight']!, weights['out_proj.weight']!];
    const state = states[layer]!;
    if (!isStored(first) || !isStored(second) || !first.host || !second.host) return null;
    const out = layerStep({
      ...{ heads, headDim, groups, stateSize, epsilon: spec.epsilon, limit: spec.timeStepLimit },
      normGroups: spec.normGroups === 'full' ? 1 : groups,
      x: stream,
      state: state.stored ?? state.ssm,
      context: { layers: contexts, layer },
      mask: mask && tf.reshape(mask, [b]),
      gamma,
      inProj: first.host,
      taps: tensor(weights, 'conv1d.weight'),
      bias: spec.useConvBias ? tensor(weights, 'conv1d.bias') : undefined,
      dtBias: tensor(weights, 'dt_bias'),
      aLog: tensor(weights, 'A_log'),
      d: tensor(weights, 'D'),
      normGamma: tensor(weights, 'norm.weight'),
      outProj: second.host,
    });
    if (!out) return null;
    stream = out.y;
    contexts = out.contexts;
    after.push({ conv: state.conv, ...storedState(out.state) });
  }
  // the contexts of all layers were moved on together
  const moved = after.map((state, layer) => ({ ...state, context: { layers: contexts, layer } }));
  return { h: tf.reshape(stream, [b, 1, d]), states: moved };
}
