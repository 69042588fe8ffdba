/** Sizes and constants of a mixer, and its weights as they are described before they exist. */
import type * as tf from '@tensorflow/tfjs';
import { ConfigError } from '../base/errors.js';
import * as kinds from '../base/option_kinds.js';
import type { OptionRules } from '../base/options.js';
import type { LayerArgs } from './base.js';
import { convWeightSpecs } from './causal_conv1d.js';
import { positive, size } from './layer_args.js';
import { NORM_GROUPS, type NormGroups, normGroupsOf } from './rms_norm_gated.js';
import type { WeightSpec } from './weights.js';
import { omit } from '../base/omit.js';

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

/** Rules of what a mixer has of its own. */
export const MIXER_RULES: OptionRules<Omit<Mamba2MixerArgs, keyof LayerArgs>> = {
  hiddenSize: { kind: size },
  numHeads: { kind: size },
  headDim: { kind: size, default: 64 },
  nGroups: { kind: size, default: 1 },
  stateSize: { kind: size, default: 128 },
  convKernel: { kind: size, default: 4 },
  chunkSize: { kind: size, default: 64 },
  useBias: { kind: kinds.boolean, default: false },
  useConvBias: { kind: kinds.boolean, default: true },
  epsilon: { kind: positive, default: 1e-5 },
  timeStepLimit: {
    // JSON has no Infinity: a saved layer has null for it
    kind: kinds.named('two numbers, the lower first', (v) => {
      if (!Array.isArray(v) || v.length !== 2) return false;
      const [low, high] = [(v[0] ?? 0) as unknown, (v[1] ?? Infinity) as unknown];
      return typeof low === 'number' && typeof high === 'number' && low <= high;
    }),
  },
  normGroups: { kind: NORM_GROUPS, default: 'per_group' },
  initializerRange: { kind: positive, default: 0.1 },
  timeStepMin: { kind: positive, default: 0.001 },
  timeStepMax: { kind: positive, default: 0.1 },
  timeStepFloor: { kind: positive, default: 0.0001 },
  outProjDivisor: { kind: positive, default: 1 },
};

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

/** The arguments that rebuild a mixer, fit for JSON. */
export function mixerConfig(spec: MixerSpec): tf.serialization.ConfigDict {
  const args = omit(spec, 'innerSize', 'convSize', 'projSize');
  const [low, high] = spec.timeStepLimit;
  return { ...args, timeStepLimit: [low, Number.isFinite(high) ? high : null] };
}
