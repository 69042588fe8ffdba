/** One residual block: h + Mixer(RMSNorm(h)) (spec B.1). The residual stream is float32. */
import * as tf from '@tensorflow/tfjs';
import { materialiseOnGpu } from '../jit/fusion/barrier.js';
import { single, SpecLayer } from './base.js';
import { stepPaths, takePath } from './decode/choose.js';
import { oneRowStep } from './decode/one_row_step.js';
import { mixerForward, type MixerOptions, type MixerState } from './mixer.js';
import { mixerOptions } from './call_options.js';
import { checkedArgs, layerTable } from './layer_args.js';
import {
  type Mamba2MixerArgs,
  MIXER_RULES,
  mixerConfig,
  type MixerSpec,
  mixerSpec,
  mixerWeightSpecs,
} from './mixer_spec.js';
import { rmsNorm, rmsParts } from './rms_norm.js';
import { tensor, type WeightSpec, type Weights } from './weights.js';

const MIXER = 'mixer.';

/** A mixer's weights among those of its block. */
export function mixerPart(weights: Weights): Weights {
  const part: Record<string, Weights[string]> = {};
  for (const name of Object.keys(weights)) if (name.startsWith(MIXER)) part[name.slice(MIXER.length)] = weights[name]!;
  return part;
}

/**
 * @param x residual stream [b, t, d] @param weights 'norm.weight' and 'mixer.*'
 * @returns the stream after the block, and the mixer's state
 */
export function blockForward(
  spec: MixerSpec,
  weights: Weights,
  x: tf.Tensor3D,
  options: MixerOptions = {},
): { y: tf.Tensor3D; state: MixerState } {
  const [y, conv, ssm, stored] = tf.tidy((): [tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor?] => {
    const gamma = tensor(weights, 'norm.weight');
    const own = mixerPart(weights);
    const [b, t] = x.shape;
    const added = (mixed: ReturnType<typeof mixerForward>): ReturnType<typeof mixerForward> => {
      const y = tf.add(x, mixed.y) as tf.Tensor3D;
      return { y: options.state ? materialiseOnGpu(y) : y, state: mixed.state };
    };
    const afterNorm = () => added(mixerForward(spec, own, rmsNorm(x, gamma, spec.epsilon) as tf.Tensor3D, options));
    const normInParts = () => {
      const { scaled, factor } = rmsParts(x, gamma, spec.epsilon);
      const inputScale = factor as tf.Tensor3D;
      return added(mixerForward(spec, own, scaled as tf.Tensor3D, { ...options, inputScale }));
    };
    const out = takePath(
      stepPaths(spec, own, { rows: b, tokens: t, state: options.state, mergeStep: options.mergeStep }),
      {
        one_row: () => oneRowStep(spec, own, x, gamma, options),
        kernels: normInParts,
        merged: normInParts,
        plain: afterNorm,
        scan: afterNorm,
      },
    )!;
    return [out.y, out.state.conv, out.state.ssm, out.state.stored];
  });
  const state: MixerState = { conv: conv as tf.Tensor3D, ssm: ssm as tf.Tensor4D, ...(stored && { stored }) };
  return { y: y as tf.Tensor3D, state };
}

/** The block's weights under the checkpoint's names. */
export function blockWeightSpecs(spec: MixerSpec): WeightSpec[] {
  return [
    { name: 'norm.weight', shape: [spec.hiddenSize], role: 'small', init: { kind: 'ones' } },
    ...mixerWeightSpecs(spec, MIXER),
  ];
}

const TABLE = layerTable<Mamba2MixerArgs>('new Mamba2Block()', MIXER_RULES);
const FORWARD_TABLE = mixerOptions('Mamba2Block.forward()');
const CALL_TABLE = mixerOptions('Mamba2Block.callAndReturnState()');

/**
 * The block as a layer: [b, t, d] -> [b, t, d]. Takes the arguments of Mamba2Mixer; weights `norm.weight` and `mixer.*`.
 * Source: Hugging Face Mamba2Block.
 * @example
 * const block = new Mamba2Block({ hiddenSize: 16, numHeads: 4, headDim: 8, stateSize: 4 });
 * const y = block.apply(tf.ones([1, 5, 16])) as tf.Tensor; // [1, 5, 16]
 */
export class Mamba2Block extends SpecLayer {
  /** @nocollapse */
  static className = 'Mamba2Block';
  readonly spec: MixerSpec;

  constructor(args: Mamba2MixerArgs) {
    super(checkedArgs(TABLE, args, ['hiddenSize', 'numHeads']));
    this.spec = mixerSpec(args);
  }

  protected override weightSpecs(): WeightSpec[] {
    return blockWeightSpecs(this.spec);
  }

  forward(x: tf.Tensor3D, weights: Weights, options?: MixerOptions): { y: tf.Tensor3D; state: MixerState } {
    FORWARD_TABLE.check(options);
    return blockForward(this.spec, weights, x, options);
  }

  /** As call, with a state in and out. */
  callAndReturnState(x: tf.Tensor3D, options?: MixerOptions): { y: tf.Tensor3D; state: MixerState } {
    CALL_TABLE.check(options);
    this.ensureBuilt(x.shape);
    return blockForward(this.spec, this.weightMap(), x, options);
  }

  override call(inputs: tf.Tensor | tf.Tensor[]): tf.Tensor {
    return tf.tidy(() => this.forward(single(inputs) as tf.Tensor3D, this.weightMap()).y);
  }

  override getConfig(): tf.serialization.ConfigDict {
    return { ...super.getConfig(), ...mixerConfig(this.spec) };
  }
}
tf.serialization.registerClass(Mamba2Block);
