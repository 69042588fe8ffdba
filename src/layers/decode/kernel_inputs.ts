/** What kernels of a decoding step take from a mixer, and what they leave behind. */
import type * as tf from '@tensorflow/tfjs';
import { castFloat32, trueDtype } from '../../jit/index.js';
import type { MixerState } from '../mixer.js';
import type { MixerSpec } from '../mixer_spec.js';
import { tensor, type Weights } from '../weights.js';

/** The epilogue of an input projection: convolution and step sizes. @param context see MixerState */
export function epilogueInputs(spec: MixerSpec, weights: Weights, context: NonNullable<MixerState['context']>) {
  const { innerSize, convSize, convKernel, numHeads } = spec;
  return {
    first: innerSize,
    channels: convSize,
    taps: convKernel,
    heads: numHeads,
    limit: spec.timeStepLimit,
    context: context.layers,
    place: context.layer * (convKernel - 1) * convSize,
    weights: tensor(weights, 'conv1d.weight'),
    bias: spec.useConvBias ? tensor(weights, 'conv1d.bias') : undefined,
    dtBias: tensor(weights, 'dt_bias'),
  };
}

/** A state as a kernel left it: in its stored type, and as the layers see it. */
export type StoredState = Pick<MixerState, 'ssm' | 'stored'>;

export function storedState(state: tf.Tensor): StoredState {
  if (trueDtype(state) !== 'bfloat16') return { ssm: state as tf.Tensor4D };
  return { ssm: castFloat32(state) as tf.Tensor4D, stored: state };
}
