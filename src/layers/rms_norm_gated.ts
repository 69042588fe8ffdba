/**
 * The gated norm inside the mixer: v = y·SiLU(z), then RMSNorm per group of d/groups channels (gate first, then norm).
 * The authors normalise per group; stock transformers over all channels, which is wrong for checkpoints with several
 * groups (spec D1) and kept as `normGroups: 'full'`.
 */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError } from '../base/errors.js';
import * as kinds from '../base/option_kinds.js';
import { silu } from './activations.js';
import { type LayerArgs, SpecLayer } from './base.js';
import { checkedArgs, layerTable, positive, size } from './layer_args.js';
import { rmsNorm, scaleByRms } from './rms_norm.js';
import { tensor, type WeightSpec, type Weights } from './weights.js';

export type NormGroups = 'per_group' | 'full';

/**
 * Checks the option; 'per_group' when absent.
 * @throws ArgumentError for any other value
 */
export function normGroupsOf(value: string | undefined): NormGroups {
  // tf.loadLayersModel spells the strings of a saved configuration in camel case
  if (value === undefined || value === 'per_group' || value === 'perGroup') return 'per_group';
  if (value === 'full') return value;
  throw new ArgumentError(`normGroups is '${value}', expected 'per_group' or 'full'`, { normGroups: value });
}

/** What normGroups takes; 'perGroup' is what tf.loadLayersModel makes of 'per_group'. */
export const NORM_GROUPS = kinds.named("'per_group' or 'full'", (v) =>
  ['per_group', 'perGroup', 'full'].includes(v as string),
);

/** @param y [..., d] @param gate [..., d] @param weight [d] @param groups number of groups normalised apart */
export function rmsNormGated(
  y: tf.Tensor,
  gate: tf.Tensor,
  weight: tf.Tensor,
  groups: number,
  epsilon: number,
): tf.Tensor {
  return tf.tidy(() => rmsNormByGroups(tf.mul(y, silu(gate)), weight, groups, epsilon));
}

/** The norm alone. @param v [..., d] @param weight [d] @param groups number of groups normalised apart */
export function rmsNormByGroups(v: tf.Tensor, weight: tf.Tensor, groups: number, epsilon: number): tf.Tensor {
  return tf.tidy(() => {
    if (groups === 1) return rmsNorm(v, weight, epsilon);
    const d = v.shape[v.rank - 1]!;
    const grouped = scaleByRms(tf.reshape(v, [-1, groups, d / groups]), epsilon); // [m, g, d/g]
    return tf.mul(tf.reshape(grouped, v.shape), weight);
  });
}

export interface RMSNormGatedArgs extends LayerArgs {
  /** Channels, d. */
  size: number;
  /** Groups of channels, g; divides size. Default 1. */
  groups?: number;
  /** 'per_group' (default) or 'full': one norm over all channels, as transformers up to 5.22 does. */
  normGroups?: NormGroups;
  /** Default 1e-5. */
  epsilon?: number;
}

const TABLE = layerTable<RMSNormGatedArgs>('new RMSNormGated()', {
  size: { kind: size },
  groups: { kind: size, default: 1 },
  normGroups: { kind: NORM_GROUPS, default: 'per_group' },
  epsilon: { kind: positive, default: 1e-5 },
});

/**
 * Gated RMSNorm as a layer of two inputs [y, gate], both [..., d]; output [..., d]; one weight, `weight` [d].
 * Source: mamba_ssm RMSNormGated (norm_before_gate=False), Hugging Face MambaRMSNormGated.
 * @throws ArgumentError when groups do not divide size
 * @example
 * const norm = new RMSNormGated({ size: 8, groups: 2 });
 * const v = norm.apply([tf.ones([1, 8]), tf.ones([1, 8])]) as tf.Tensor;
 */
export class RMSNormGated extends SpecLayer {
  /** @nocollapse */
  static className = 'Mamba2RMSNormGated';
  readonly size: number;
  readonly groups: number;
  readonly normGroups: NormGroups;
  readonly epsilon: number;

  constructor(args: RMSNormGatedArgs) {
    super(checkedArgs(TABLE, args, ['size']));
    this.size = args.size;
    this.groups = args.groups ?? 1;
    this.normGroups = normGroupsOf(args.normGroups);
    this.epsilon = args.epsilon ?? 1e-5;
    if (this.size % this.groups !== 0) {
      throw new ArgumentError(`RMSNormGated: ${this.groups} groups do not divide size ${this.size}`, { ...args });
    }
  }

  protected override weightSpecs(): WeightSpec[] {
    return [{ name: 'weight', shape: [this.size], role: 'small', init: { kind: 'ones' } }];
  }

  forward(y: tf.Tensor, gate: tf.Tensor, weights: Weights): tf.Tensor {
    const groups = this.normGroups === 'full' ? 1 : this.groups;
    return rmsNormGated(y, gate, tensor(weights, 'weight'), groups, this.epsilon);
  }

  override call(inputs: tf.Tensor | tf.Tensor[]): tf.Tensor {
    if (!Array.isArray(inputs) || inputs.length !== 2) {
      throw new ArgumentError('RMSNormGated takes two inputs, [y, gate]', {
        got: Array.isArray(inputs) ? inputs.length : 1,
      });
    }
    return this.forward(inputs[0]!, inputs[1]!, this.weightMap());
  }

  override computeOutputShape(inputShape: tf.Shape | tf.Shape[]): tf.Shape {
    return (Array.isArray(inputShape[0]) ? inputShape[0] : inputShape) as tf.Shape;
  }

  override getConfig(): tf.serialization.ConfigDict {
    return {
      ...super.getConfig(),
      size: this.size,
      groups: this.groups,
      normGroups: this.normGroups,
      epsilon: this.epsilon,
    };
  }
}
tf.serialization.registerClass(RMSNormGated);
