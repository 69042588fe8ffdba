/** The causal convolution as a tf.layers layer; its maths is in convolution.ts. */
import * as tf from '@tensorflow/tfjs';
import * as kinds from '../base/option_kinds.js';
import { silu } from './activations.js';
import { type LayerArgs, single, SpecLayer } from './base.js';
import { causalConv, type ConvOutputs } from './convolution.js';
import { checkedArgs, layerTable, size } from './layer_args.js';
import { tensor, type WeightSpec, type Weights } from './weights.js';

export interface CausalConv1DArgs extends LayerArgs {
  /** Channels, d. */
  channels: number;
  /** Taps, k. Default 4. */
  kernelSize?: number;
  /** Default true. */
  useBias?: boolean;
  /** 'silu' (default) or null for none. */
  activation?: 'silu' | null;
}

const TABLE = layerTable<CausalConv1DArgs>('new CausalConv1D()', {
  channels: { kind: size },
  kernelSize: { kind: size, default: 4 },
  useBias: { kind: kinds.boolean, default: true },
  activation: { kind: kinds.named("'silu' or null", (v) => v === 'silu' || v === null), default: 'silu' },
});

/** Fresh weights as PyTorch's Conv1d has them: uniform within ±1/sqrt(k). */
export function convWeightSpecs(prefix: string, channels: number, taps: number, useBias: boolean): WeightSpec[] {
  const bound = 1 / Math.sqrt(taps);
  const weight: WeightSpec = {
    name: `${prefix}weight`,
    shape: [channels, 1, taps],
    role: 'small',
    init: { kind: 'uniform', low: -bound, high: bound },
  };
  return useBias
    ? [weight, { name: `${prefix}bias`, shape: [channels], role: 'small', init: { kind: 'zeros' } }]
    : [weight];
}

/**
 * Causal depthwise convolution as a layer: [b, t, d] -> [b, t, d]; weights `weight` [d, 1, k] and `bias` [d].
 * @example
 * const y = new CausalConv1D({ channels: 6 }).apply(tf.ones([1, 5, 6])) as tf.Tensor;
 */
export class CausalConv1D extends SpecLayer {
  /** @nocollapse */
  static className = 'Mamba2CausalConv1D';
  readonly channels: number;
  readonly kernelSize: number;
  readonly useBias: boolean;
  readonly activation: 'silu' | null;

  constructor(args: CausalConv1DArgs) {
    super(checkedArgs(TABLE, args, ['channels']));
    this.channels = args.channels;
    this.kernelSize = args.kernelSize ?? 4;
    this.useBias = args.useBias ?? true;
    this.activation = args.activation === undefined ? 'silu' : args.activation;
  }

  protected override weightSpecs(): WeightSpec[] {
    return convWeightSpecs('', this.channels, this.kernelSize, this.useBias);
  }

  /** Convolution and activation with a carried context. */
  forward(x: tf.Tensor3D, weights: Weights, context?: tf.Tensor3D): ConvOutputs {
    const bias = this.useBias ? tensor(weights, 'bias') : undefined;
    const out = causalConv(x, tensor(weights, 'weight'), bias, context);
    if (!this.activation) return out;
    const y = silu(out.y) as tf.Tensor3D;
    out.y.dispose();
    return { y, context: out.context };
  }

  override call(inputs: tf.Tensor | tf.Tensor[]): tf.Tensor {
    return tf.tidy(() => this.forward(single(inputs) as tf.Tensor3D, this.weightMap()).y);
  }

  override getConfig(): tf.serialization.ConfigDict {
    const { channels, kernelSize, useBias, activation } = this;
    return { ...super.getConfig(), channels, kernelSize, useBias, activation };
  }
}
tf.serialization.registerClass(CausalConv1D);
