/**
 * The Mamba-2 mixer: input projection, causal convolution, SSD scan, gated norm, output projection (spec B.2).
 * `mixerForward` is the maths over given weights; the Mamba2Mixer layer owns variables and calls it.
 */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError, ConfigError } from '../base/errors.js';
import { materialiseOnGpu } from '../jit/fusion/barrier.js';
import { roundToBf16 } from '../jit/index.js';
import { materialise } from '../jit/fusion/materialise.js';
import { type LayerArgs, single, SpecLayer } from './base.js';
import { causalConv, convWeightSpecs } from './causal_conv1d.js';
import { rmsParts } from './rms_norm.js';
import { type NormGroups, normGroupsOf, rmsNormByGroups } from './rms_norm_gated.js';
import { stepActivations, stepByKernel } from './decode/step_epilogue.js';
import { ssdChunkScan, ssdStep } from './ssd.js';
import { linear, silu, siluQuotient, tensor, type Weight, type WeightSpec, type Weights } from './weights.js';

export interface Mamba2MixerArgs extends LayerArgs {
  /** Model width, d. */
  hiddenSize: number;
  /** Heads, h; h·headDim is the inner width. */
  numHeads: number;
  /** p. Default 64. */
  headDim?: number;
  /** Groups that share B and C, g; divides numHeads. Default 1. */
  nGroups?: number;
  /** n. Default 128. */
  stateSize?: number;
  /** Convolution taps, k. Default 4. */
  convKernel?: number;
  /** Tokens per chunk of the scan, a matter of speed only. Default 64. */
  chunkSize?: number;
  /** Biases on the two projections. Default false. */
  useBias?: boolean;
  /** Bias on the convolution. Default true. */
  useConvBias?: boolean;
  /** Gated norm's epsilon. Default 1e-5. */
  epsilon?: number;
  /** Bounds of dt after softplus, in prefill and in decoding. Default [0, Infinity]. */
  timeStepLimit?: [number, number];
  /** Default 'per_group'. */
  normGroups?: NormGroups;
  /** Standard deviation of a fresh in_proj. Default 0.1. */
  initializerRange?: number;
  /** Range and floor of a fresh dt. Defaults 0.001, 0.1, 0.0001. */
  timeStepMin?: number;
  timeStepMax?: number;
  timeStepFloor?: number;
  /** Divides a fresh out_proj, for deep models. Default 1. */
  outProjDivisor?: number;
}

/** Sizes and constants of a mixer, all decided. */
export interface MixerSpec extends Required<Omit<Mamba2MixerArgs, keyof LayerArgs>> {
  /** h·p */
  innerSize: number;
  /** innerSize + 2·g·n: channels x, B, C of the convolution */
  convSize: number;
  /** innerSize + convSize + h: rows z, x, B, C, dt of in_proj */
  projSize: number;
}

export function mixerSpec(args: Mamba2MixerArgs): MixerSpec {
  const full = {
    hiddenSize: args.hiddenSize,
    numHeads: args.numHeads,
    headDim: args.headDim ?? 64,
    nGroups: args.nGroups ?? 1,
    stateSize: args.stateSize ?? 128,
    convKernel: args.convKernel ?? 4,
    chunkSize: args.chunkSize ?? 64,
    useBias: args.useBias ?? false,
    useConvBias: args.useConvBias ?? true,
    epsilon: args.epsilon ?? 1e-5,
    // JSON has no Infinity: a saved layer writes null for it
    timeStepLimit: [args.timeStepLimit?.[0] ?? 0, args.timeStepLimit?.[1] ?? Infinity] as [number, number],
    normGroups: normGroupsOf(args.normGroups),
    initializerRange: args.initializerRange ?? 0.1,
    timeStepMin: args.timeStepMin ?? 1e-3,
    timeStepMax: args.timeStepMax ?? 0.1,
    timeStepFloor: args.timeStepFloor ?? 1e-4,
    outProjDivisor: args.outProjDivisor ?? 1,
  };
  for (const key of ['hiddenSize', 'numHeads', 'headDim', 'nGroups', 'stateSize', 'convKernel', 'chunkSize'] as const) {
    if (!Number.isInteger(full[key]) || full[key] < 1) {
      throw new ConfigError(`Mamba2Mixer: ${key} is ${full[key]}, expected a positive integer`, { [key]: full[key] });
    }
  }
  for (const key of [
    'epsilon',
    'initializerRange',
    'timeStepMin',
    'timeStepMax',
    'timeStepFloor',
    'outProjDivisor',
  ] as const) {
    if (!(full[key] > 0)) {
      throw new ConfigError(`Mamba2Mixer: ${key} is ${full[key]}, expected a positive number`, { [key]: full[key] });
    }
  }
  if (!(full.timeStepLimit[0] <= full.timeStepLimit[1])) {
    throw new ConfigError(
      `Mamba2Mixer: timeStepLimit is [${full.timeStepLimit}], expected two numbers, the lower first`,
      { timeStepLimit: full.timeStepLimit },
    );
  }
  if (full.numHeads % full.nGroups !== 0) {
    throw new ConfigError(`Mamba2Mixer: nGroups ${full.nGroups} does not divide numHeads ${full.numHeads}`, full);
  }
  const innerSize = full.numHeads * full.headDim;
  const convSize = innerSize + 2 * full.nGroups * full.stateSize;
  return { ...full, innerSize, convSize, projSize: innerSize + convSize + full.numHeads };
}

/** dt_bias such that softplus(dt_bias) is log-uniform in [min, max] (spec B.10). */
function freshDtBias(spec: MixerSpec): (size: number) => Float32Array {
  return (size) =>
    Float32Array.from({ length: size }, () => {
      const span = Math.log(spec.timeStepMax) - Math.log(spec.timeStepMin);
      const dt = Math.max(Math.exp(Math.random() * span + Math.log(spec.timeStepMin)), spec.timeStepFloor);
      return dt + Math.log(-Math.expm1(-dt));
    });
}

/** The mixer's weights under the checkpoint's names and shapes, in the checkpoint's order (spec C.1). */
export function mixerWeightSpecs(spec: MixerSpec, prefix = ''): WeightSpec[] {
  const { hiddenSize: d, numHeads: h, innerSize, projSize } = spec;
  const bound = 1 / Math.sqrt(innerSize) / spec.outProjDivisor; // PyTorch's Linear default
  const specs: WeightSpec[] = [
    { name: 'dt_bias', shape: [h], role: 'small', init: { kind: 'values', values: freshDtBias(spec) } },
    {
      name: 'A_log',
      shape: [h],
      role: 'small',
      init: { kind: 'values', values: (size) => Float32Array.from({ length: size }, (_, i) => Math.log(i + 1)) },
    },
    { name: 'D', shape: [h], role: 'small', init: { kind: 'ones' } },
    ...convWeightSpecs('conv1d.', spec.convSize, spec.convKernel, spec.useConvBias),
    {
      name: 'in_proj.weight',
      shape: [projSize, d],
      role: 'projection',
      init: { kind: 'normal', std: spec.initializerRange },
    },
    ...(spec.useBias
      ? [{ name: 'in_proj.bias', shape: [projSize], role: 'small', init: { kind: 'zeros' } } as WeightSpec]
      : []),
    { name: 'norm.weight', shape: [innerSize], role: 'small', init: { kind: 'ones' } },
    {
      name: 'out_proj.weight',
      shape: [d, innerSize],
      role: 'projection',
      init: { kind: 'uniform', low: -bound, high: bound },
    },
    ...(spec.useBias
      ? [{ name: 'out_proj.bias', shape: [d], role: 'small', init: { kind: 'zeros' } } as WeightSpec]
      : []),
  ];
  return specs.map((s) => ({ ...s, name: prefix + s.name }));
}

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
   * A single token with a state: convolution and step sizes in one elementwise pass (stepActivations), for GPUs. False: kernels that take
   * the whole of a projection's surroundings (fused_step.ts) are left out too.
   */
  mergeStep?: boolean;
}

/** A linear map of something normalised in two parts: (scaled·Wᵀ)·factor + bias. */
function scaledLinear(scaled: tf.Tensor, factor: tf.Tensor | undefined, w: Weight, bias?: tf.Tensor): tf.Tensor {
  if (!factor) return linear(scaled, w, bias);
  const y = tf.mul(linear(scaled, w), factor);
  return bias ? tf.add(y, bias) : y;
}

/** dt = clamp(softplus(raw + bias)) · mask (spec B.2 step 8); the limit acts in decoding too (D4). */
function timeSteps(raw: tf.Tensor, bias: tf.Tensor, limit: [number, number], mask?: tf.Tensor): tf.Tensor {
  let dt: tf.Tensor = tf.softplus(tf.add(raw, bias));
  if (limit[0] > 0) dt = tf.maximum(dt, limit[0]);
  if (Number.isFinite(limit[1])) dt = tf.minimum(dt, limit[1]);
  return mask ? tf.mul(dt, mask) : dt;
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
  const { numHeads: h, headDim: p, nGroups: g, stateSize: n, innerSize, convSize } = spec;
  const [b, t] = u.shape;
  if (u.shape[2] !== spec.hiddenSize) {
    throw new ArgumentError(`Mamba2Mixer: input has shape [${u.shape}], expected [b, t, ${spec.hiddenSize}]`, {
      shape: u.shape,
    });
  }
  const bias = (name: string): tf.Tensor | undefined => (spec.useBias ? tensor(weights, name) : undefined);
  const [y, conv, ssm, stored] = tf.tidy((): [tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor?] => {
    const bf16 = t > 1 && options.bf16Scan;
    /** For what several kernels of a GPU read. */
    const passed = (x: tf.Tensor): tf.Tensor => (bf16 ? roundToBf16(x) : x);
    const projected = passed(scaledLinear(u, options.inputScale, weights['in_proj.weight']!, bias('in_proj.bias'))); // [b, t, projSize]
    const [z, rawXBC, rawDt] = tf.split(projected, [innerSize, convSize, h], 2) as [tf.Tensor, tf.Tensor, tf.Tensor];
    const { mask, state, segments } = options;
    const columnMask = mask ? tf.reshape(mask, [b, t, 1]) : undefined;
    // with biases a padded position is not zero, and would reach the next real token through the convolution (D7)
    const xBC = columnMask ? tf.mul(rawXBC, columnMask) : rawXBC;
    const convBias = spec.useConvBias ? tensor(weights, 'conv1d.bias') : undefined;
    const mixed = causalConv(
      xBC as tf.Tensor3D,
      tensor(weights, 'conv1d.weight'),
      convBias,
      state && (t > 1 ? materialiseOnGpu(state.conv) : state.conv),
      mask,
      segments,
      { rounded: bf16 ? { rows: projected as tf.Tensor3D, first: innerSize } : undefined },
    );
    /** For what several kernels read, of more tokens than one. @param gradient whether its gradient is such a value too */
    const inMemory = (x: tf.Tensor, gradient = false): tf.Tensor =>
      t === 1 ? x : materialise(x, tensor(weights, 'D'), gradient);
    /** Norm and output projection. @param v gated, of b·t·innerSize values */
    const project = (v: tf.Tensor): tf.Tensor => {
      const groups = spec.normGroups === 'full' ? 1 : g;
      const gated = tf.reshape(v, [b, t, innerSize]);
      const gamma = tensor(weights, 'norm.weight');
      const [outWeight, outBias] = [weights['out_proj.weight']!, bias('out_proj.bias')];
      if (t === 1 && groups === 1 && options.mergeStep) {
        const { scaled, factor } = rmsParts(gated, gamma, spec.epsilon);
        return scaledLinear(scaled, factor, outWeight, outBias);
      }
      return linear(rmsNormByGroups(gated, gamma, groups, spec.epsilon), outWeight, outBias);
    };
    const before = options.mergeStep && t === 1 && !segments ? state : undefined;
    const step = before && stepByKernel(spec, weights, tf.reshape(projected, [b, -1]) as tf.Tensor2D, before, mask);
    if (step) return [project(step.gated), mixed.context, step.state.ssm, step.state.stored];
    let activated: tf.Tensor; // [b, t, convSize]
    let dt: tf.Tensor; // [b, t, h]
    if (before) {
      const raw = tf.slice(projected, [0, 0, innerSize], [b, 1, convSize + h]);
      const step = stepActivations(spec, weights, tf.reshape(raw, [b, convSize + h]), before.conv);
      activated = tf.reshape(step.xBC, [b, 1, convSize]);
      dt = tf.reshape(step.dt, [b, 1, h]);
      if (columnMask) dt = tf.mul(dt, columnMask);
    } else {
      activated = t === 1 && state ? siluQuotient(mixed.y) : inMemory(silu(inMemory(mixed.y)), true);
      dt = timeSteps(rawDt, tensor(weights, 'dt_bias'), spec.timeStepLimit, columnMask);
    }
    const [x, B, C] = tf.split(activated, [innerSize, g * n, g * n], 2) as [tf.Tensor, tf.Tensor, tf.Tensor];
    const A = tf.neg(tf.exp(tensor(weights, 'A_log'))) as tf.Tensor1D;

    let scanned: tf.Tensor; // [b, t, h, p]
    let finalState: tf.Tensor4D;
    const heads = tf.reshape(x, [b, t, h, p]) as tf.Tensor4D;
    if (t === 1 && state) {
      const one = ssdStep({
        x: tf.reshape(x, [b, h, p]),
        dt: tf.reshape(dt, [b, h]),
        A,
        B: tf.reshape(B, [b, g, n]),
        C: tf.reshape(C, [b, g, n]),
        state: state.ssm,
      });
      scanned = tf.reshape(one.y, [b, 1, h, p]);
      finalState = one.state;
    } else {
      const shape: [number, number, number, number] = [b, t, g, n];
      const inputs = {
        x: heads,
        dt: dt as tf.Tensor3D,
        A,
        B: tf.reshape(B, shape) as tf.Tensor4D,
        C: tf.reshape(C, shape) as tf.Tensor4D,
        initialState: state?.ssm,
        segments,
        bf16: options.bf16Scan,
      };
      const scan = ssdChunkScan(inputs, options.chunkSize ?? spec.chunkSize);
      scanned = scan.y;
      finalState = scan.finalState;
    }
    const skipped = tf.add(scanned, tf.mul(heads, tf.reshape(tensor(weights, 'D'), [1, 1, h, 1])));
    const flat = inMemory(tf.reshape(skipped, [b, t, innerSize]), true);
    // its gradient needs it by itself
    const gated = passed(tf.mul(state ? flat : passed(flat), silu(z)));
    return [project(gated), mixed.context, finalState];
  });
  const state: MixerState = { conv: conv as tf.Tensor3D, ssm: ssm as tf.Tensor4D, ...(stored && { stored }) };
  return { y: y as tf.Tensor3D, state };
}

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
    super(args);
    this.spec = mixerSpec(args);
  }

  protected override weightSpecs(): WeightSpec[] {
    return mixerWeightSpecs(this.spec);
  }

  forward(u: tf.Tensor3D, weights: Weights, options?: MixerOptions): { y: tf.Tensor3D; state: MixerState } {
    return mixerForward(this.spec, weights, u, options);
  }

  /** As call, with a state in and out. */
  callAndReturnState(u: tf.Tensor3D, options?: MixerOptions): { y: tf.Tensor3D; state: MixerState } {
    this.ensureBuilt(u.shape);
    return this.forward(u, this.weightMap(), options);
  }

  override call(inputs: tf.Tensor | tf.Tensor[]): tf.Tensor {
    return tf.tidy(() => this.forward(single(inputs) as tf.Tensor3D, this.weightMap()).y);
  }

  override getConfig(): tf.serialization.ConfigDict {
    return { ...super.getConfig(), ...mixerConfig(this.spec) };
  }
}
tf.serialization.registerClass(Mamba2Mixer);

/** The arguments that rebuild a mixer, fit for JSON. */
export function mixerConfig(spec: MixerSpec): tf.serialization.ConfigDict {
  const derived = ['innerSize', 'convSize', 'projSize'];
  const args = Object.fromEntries(Object.entries(spec).filter(([key]) => !derived.includes(key)));
  const [low, high] = spec.timeStepLimit;
  return { ...args, timeStepLimit: [low, Number.isFinite(high) ? high : null] };
}
