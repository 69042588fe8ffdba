/**
 * The Mamba-2 mixer: input projection, causal convolution, SSD scan, gated norm, output projection (spec B.2).
 * `mixerForward` is the maths over given weights; the Mamba2Mixer layer owns variables and calls it.
 */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError } from '../base/errors.js';
import { materialiseOnGpu } from '../jit/fusion/barrier.js';
import { roundToBf16 } from '../jit/index.js';
import { materialise } from '../jit/fusion/materialise.js';
import { silu, stepSizes } from './activations.js';
import { single, SpecLayer } from './base.js';
import { causalConv } from './convolution.js';
import { stepPaths, takePath } from './decode/choose.js';
import type { StoredState } from './decode/kernel_inputs.js';
import { kernelsStep } from './decode/kernels_step.js';
import { opsStep } from './decode/ops_step.js';
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
import { rmsParts } from './rms_norm.js';
import { rmsNormByGroups } from './rms_norm_gated.js';
import { ssdChunkScan } from './ssd.js';
import { isStored, linear, tensor, type Weight, type WeightSpec, type Weights } from './weights.js';

/** What a mixer carries from one call to the next. */
export interface MixerState {
  /** Last k-1 raw convolution inputs, [b, k-1, convSize], most recent last */
  conv: tf.Tensor3D;
  /** Recurrent state, [b, h, p, n] */
  ssm: tf.Tensor4D;
  /** The same where it is stored in another type: bfloat16, of which `ssm` is the conversion. For kernels that take it so, and give it. */
  stored?: tf.Tensor;
  /** Where conv lies, given with states that are stored together: all layers, [b, layers, k-1, convSize], and which this is. */
  context?: { layers: tf.Tensor4D; layer: number };
}

export interface MixerOptions {
  /** State before the first token; zeros when absent. Never disposed here. */
  state?: MixerState;
  /**
   * [b, t] of 0 and 1. Masked positions change nothing; their outputs mean nothing. With a state, the masked positions
   * of a row must follow its real ones (right padding): a convolution context cannot reach over a gap.
   */
  mask?: tf.Tensor2D;
  /**
   * Number of the document that each position belongs to, [b, t], each document in one run: nothing passes from one
   * document to the next. A state given belongs to the first one.
   */
  segments?: tf.Tensor2D;
  /** [b, t, 1]: what the input projection is multiplied by; the rest of a norm that was taken in two parts (rmsParts). */
  inputScale?: tf.Tensor3D;
  /** The scan in bfloat16 (SsdInputs.bf16), and what comes to it and from it in memory. For GPUs. Default false. */
  bf16Scan?: boolean;
  /** Tokens per chunk of the scan, in place of the spec's. */
  chunkSize?: number;
  /**
   * For a single token with a state, see decode/choose.ts: small work is merged, or done by kernels, as GPUs want it. False: kernels that
   * take the whole of what is around a projection are left out too. Without it, those are taken where the device has them.
   */
  mergeStep?: boolean;
}

/** A linear map of something normalised in two parts: (scaled·Wᵀ)·factor + bias. */
function scaledLinear(scaled: tf.Tensor, factor: tf.Tensor | undefined, w: Weight, bias?: tf.Tensor): tf.Tensor {
  if (!factor) return linear(scaled, w, bias);
  const y = tf.mul(linear(scaled, w), factor);
  return bias ? tf.add(y, bias) : y;
}

/** What the input projection and the convolution give. */
interface Projected {
  /** Before all else, [b, t, innerSize] */
  z: tf.Tensor;
  /** After the convolution, [b, t, convSize] */
  convolved: tf.Tensor;
  /** Raw step sizes, [b, t, h] */
  rawDt: tf.Tensor;
}

/**
 * The chunk scan with activations before it, and skip and gate after it.
 * @returns (y + D·x)·silu(z), [b, t, innerSize], and the state after the last token
 */
function scan(
  spec: MixerSpec,
  weights: Weights,
  { z, convolved, rawDt }: Projected,
  { state, mask, segments, bf16Scan, chunkSize }: MixerOptions,
): { gated: tf.Tensor; state: StoredState } {
  const { numHeads: h, headDim: p, nGroups: g, stateSize: n, innerSize } = spec;
  const [b, t] = z.shape as [number, number, number];
  /** For what several kernels of a CPU read, of more tokens than one. @param gradient whether its gradient is such a value too */
  const inMemory = (x: tf.Tensor, gradient = false): tf.Tensor =>
    t === 1 ? x : materialise(x, tensor(weights, 'D'), gradient);
  /** The same of a GPU. */
  const passed = (x: tf.Tensor): tf.Tensor => (t > 1 && bf16Scan ? roundToBf16(x) : x);
  const activated = inMemory(silu(inMemory(convolved)), true); // [b, t, convSize]
  const open = stepSizes(tf.add(rawDt, tensor(weights, 'dt_bias')), spec.timeStepLimit);
  const dt = mask ? tf.mul(open, tf.reshape(mask, [b, t, 1])) : open; // [b, t, h]
  const [x, B, C] = tf.split(activated, [innerSize, g * n, g * n], 2) as [tf.Tensor, tf.Tensor, tf.Tensor];
  const heads = tf.reshape(x, [b, t, h, p]) as tf.Tensor4D;
  const inputs = {
    x: heads,
    dt: dt as tf.Tensor3D,
    A: tf.neg(tf.exp(tensor(weights, 'A_log'))) as tf.Tensor1D,
    B: tf.reshape(B, [b, t, g, n]) as tf.Tensor4D,
    C: tf.reshape(C, [b, t, g, n]) as tf.Tensor4D,
    initialState: state?.ssm,
    segments,
    bf16: bf16Scan,
  };
  const { y, finalState } = ssdChunkScan(inputs, chunkSize ?? spec.chunkSize); // y [b, t, h, p]
  const skipped = tf.add(y, tf.mul(heads, tf.reshape(tensor(weights, 'D'), [1, 1, h, 1])));
  const flat = inMemory(tf.reshape(skipped, [b, t, innerSize]), true);
  // its gradient needs it by itself
  const gated = passed(tf.mul(state ? flat : passed(flat), silu(z)));
  return { gated, state: { ssm: finalState } };
}

/**
 * The whole mixer over given weights.
 *
 * @param spec sizes @param weights by name without prefix @param u normalised input [b, t, d], float32
 * @returns y [b, t, d] and the state after the last (real) token; both new tensors
 */
export function mixerForward(
  spec: MixerSpec,
  weights: Weights,
  u: tf.Tensor3D,
  options: MixerOptions = {},
): { y: tf.Tensor3D; state: MixerState } {
  const { numHeads: h, innerSize, convSize } = spec;
  const [b, t] = u.shape;
  if (u.shape[2] !== spec.hiddenSize) {
    throw new ArgumentError(`Mamba2Mixer: input has shape [${u.shape}], expected [b, t, ${spec.hiddenSize}]`, {
      shape: u.shape,
    });
  }
  const { mask, state, mergeStep } = options;
  const paths = stepPaths(spec, weights, { rows: b, tokens: t, state, mergeStep });
  const step = paths[0] !== 'scan';
  // a single token with a state is of the state's document
  const segments = step ? undefined : options.segments;
  const bias = (name: string): tf.Tensor | undefined => (spec.useBias ? tensor(weights, name) : undefined);
  const [y, conv, ssm, stored] = tf.tidy((): [tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor?] => {
    const bf16 = t > 1 && options.bf16Scan;
    const own = scaledLinear(u, options.inputScale, weights['in_proj.weight']!, bias('in_proj.bias'));
    const projected = bf16 ? roundToBf16(own) : own; // [b, t, projSize]
    const [z, rawXBC, rawDt] = tf.split(projected, [innerSize, convSize, h], 2) as [tf.Tensor, tf.Tensor, tf.Tensor];
    const columnMask = mask ? tf.reshape(mask, [b, t, 1]) : undefined;
    // with biases a padded position is not zero, and would reach the next real token through the convolution (D7)
    const xBC = columnMask ? tf.mul(rawXBC, columnMask) : rawXBC;
    const { y: convolved, context } = causalConv(
      xBC as tf.Tensor3D,
      tensor(weights, 'conv1d.weight'),
      spec.useConvBias ? tensor(weights, 'conv1d.bias') : undefined,
      state && (t > 1 ? materialiseOnGpu(state.conv) : state.conv),
      mask,
      segments,
      { rounded: bf16 ? { rows: projected as tf.Tensor3D, first: innerSize } : undefined },
    );
    /** Norm and output projection. @param v gated, of b·t·innerSize values */
    const project = (v: tf.Tensor): tf.Tensor => {
      const groups = spec.normGroups === 'full' ? 1 : spec.nGroups;
      const gated = tf.reshape(v, [b, t, innerSize]);
      const gamma = tensor(weights, 'norm.weight');
      const [outWeight, outBias] = [weights['out_proj.weight']!, bias('out_proj.bias')];
      if (isStored(outWeight) && outWeight.normed) {
        const flat = tf.reshape(gated, [b * t, innerSize]) as tf.Tensor2D;
        const y = tf.reshape(outWeight.normed(flat, gamma, spec.epsilon), [b, t, spec.hiddenSize]);
        return outBias ? tf.add(y, outBias) : y;
      }
      if (groups === 1 && paths.includes('merged') && !(isStored(outWeight) && outWeight.summed)) {
        const { scaled, factor } = rmsParts(gated, gamma, spec.epsilon);
        return scaledLinear(scaled, factor, outWeight, outBias);
      }
      return linear(rmsNormByGroups(gated, gamma, groups, spec.epsilon), outWeight, outBias);
    };
    const inputs = { z, convolved, rawDt };
    const byOps = (merged: boolean) => () =>
      opsStep(spec, weights, { ...inputs, ssm: state!.ssm, mask: columnMask }, merged);
    const between = takePath<{ gated: tf.Tensor; state: StoredState }>(paths, {
      kernels: () => kernelsStep(spec, weights, tf.reshape(projected, [b, -1]), state!, mask),
      merged: byOps(true),
      plain: byOps(false),
      scan: () => scan(spec, weights, inputs, options),
    })!;
    return [project(between.gated), context, between.state.ssm, between.state.stored];
  });
  const after: MixerState = { conv: conv as tf.Tensor3D, ssm: ssm as tf.Tensor4D, ...(stored && { stored }) };
  return { y: y as tf.Tensor3D, state: after };
}

const TABLE = layerTable<Mamba2MixerArgs>('new Mamba2Mixer()', MIXER_RULES);
const FORWARD_TABLE = mixerOptions('Mamba2Mixer.forward()');
const CALL_TABLE = mixerOptions('Mamba2Mixer.callAndReturnState()');

/**
 * The mixer as a layer: [b, t, d] -> [b, t, d]. Weights under the checkpoint's names and shapes: `dt_bias`, `A_log`,
 * `D` [h], `conv1d.weight` [convSize, 1, k], `in_proj.weight` [projSize, d], `norm.weight`, `out_proj.weight`.
 * Source: paper section 7, Hugging Face Mamba2Mixer.
 * @throws ConfigError for sizes that do not fit together
 * @example
 * const mixer = new Mamba2Mixer({ hiddenSize: 16, numHeads: 4, headDim: 8, stateSize: 4 });
 * const y = mixer.apply(tf.ones([1, 5, 16])) as tf.Tensor; // [1, 5, 16]
 */
export class Mamba2Mixer extends SpecLayer {
  /** @nocollapse */
  static className = 'Mamba2Mixer';
  readonly spec: MixerSpec;

  constructor(args: Mamba2MixerArgs) {
    super(checkedArgs(TABLE, args, ['hiddenSize', 'numHeads']));
    this.spec = mixerSpec(args);
  }

  protected override weightSpecs(): WeightSpec[] {
    return mixerWeightSpecs(this.spec);
  }

  forward(u: tf.Tensor3D, weights: Weights, options?: MixerOptions): { y: tf.Tensor3D; state: MixerState } {
    FORWARD_TABLE.check(options);
    return mixerForward(this.spec, weights, u, options);
  }

  /** As call, with a state in and out. */
  callAndReturnState(u: tf.Tensor3D, options?: MixerOptions): { y: tf.Tensor3D; state: MixerState } {
    CALL_TABLE.check(options);
    this.ensureBuilt(u.shape);
    return mixerForward(this.spec, this.weightMap(), u, options);
  }

  override call(inputs: tf.Tensor | tf.Tensor[]): tf.Tensor {
    return tf.tidy(() => this.forward(single(inputs) as tf.Tensor3D, this.weightMap()).y);
  }

  override getConfig(): tf.serialization.ConfigDict {
    return { ...super.getConfig(), ...mixerConfig(this.spec) };
  }
}
tf.serialization.registerClass(Mamba2Mixer);
