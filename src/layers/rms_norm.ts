/** RMSNorm: w · x / sqrt(mean(x²) + epsilon), the norm before each block and before the head. */
import * as tf from '@tensorflow/tfjs';
import { type LayerArgs, single, SpecLayer } from './base.js';
import { checkedArgs, layerTable, positive, size } from './layer_args.js';
import { tensor, type WeightSpec, type Weights } from './weights.js';

/**
 * Mean of squares over the last axis, [..., d] to [..., 1]. Its gradient, x·2·dy/d, is its own: that of tf.mean multiplies by ones of the shape of
 * x, which it makes on the host, so that tracing a training step of 8 × 2,048 ids of 130m made and read 3.6 GB of them.
 */
function meanOfSquares(x: tf.Tensor): tf.Tensor {
  const op = tf.customGrad((x, save) => {
    (save as tf.GradSaveFunc)([x as tf.Tensor]);
    const gradFunc = (dy: tf.Tensor, saved: tf.Tensor[]): tf.Tensor => {
      const [x] = saved as [tf.Tensor];
      return tf.mul(tf.div(dy, x.shape[x.rank - 1]!), tf.mul(x, 2));
    };
    return { value: tf.mean(tf.square(x as tf.Tensor), -1, true), gradFunc };
  });
  return op(x);
}

/**
 * Mean of squares over the last axis. Of a single position it is a product with itself: XLA makes that one kernel on a CPU, where a
 * reduction becomes two or three.
 */
function meanSquare(x: tf.Tensor): tf.Tensor {
  const d = x.shape[x.rank - 1]!;
  if (x.size !== d) return meanOfSquares(x);
  const row = tf.reshape(x, [1, d]);
  return tf.reshape(tf.div(tf.matMul(row, row, false, true), d), [...x.shape.slice(0, -1), 1]);
}

/** Scales the last axis to unit root mean square, without a weight. Statistics in float32. */
export function scaleByRms(x: tf.Tensor, epsilon: number): tf.Tensor {
  return tf.tidy(() => tf.mul(x, tf.rsqrt(tf.add(meanOfSquares(x), epsilon))));
}

/**
 * x·weight / sqrt(mean(x²) + epsilon). The division comes last because XLA keeps the result of one: of a product it
 * would compute the norm anew for each row of the matrix that follows.
 * @param x [..., d] @param weight [d]
 */
export function rmsNorm(x: tf.Tensor, weight: tf.Tensor, epsilon: number): tf.Tensor {
  return tf.tidy(() => tf.div(tf.mul(x, weight), tf.sqrt(tf.add(meanSquare(x), epsilon))));
}

/**
 * RMSNorm in two parts whose product it is: x·weight, and the factor 1/sqrt(mean(x²) + epsilon) of each position. A
 * linear map after the norm may take the first and scale its result by the second: on a GPU a compiled single step then
 * has one small kernel less for each norm. Not for CPUs, see rmsNorm.
 * @returns scaled [..., d] and factor [..., 1]
 */
export function rmsParts(x: tf.Tensor, weight: tf.Tensor, epsilon: number): { scaled: tf.Tensor; factor: tf.Tensor } {
  return tf.tidy(() => ({
    scaled: tf.mul(x, weight),
    factor: tf.rsqrt(tf.add(meanOfSquares(x), epsilon)),
  }));
}

export interface RMSNormArgs extends LayerArgs {
  /** Size of the last axis, d. */
  size: number;
  /** Added to the mean square. Default 1e-5. */
  epsilon?: number;
}

const TABLE = layerTable<RMSNormArgs>('new RMSNorm()', {
  size: { kind: size },
  epsilon: { kind: positive, default: 1e-5 },
});

/**
 * RMSNorm as a tf.layers layer. Input and output [..., d]; one weight, `weight` [d], of ones at first.
 * Source: Hugging Face Mamba2RMSNorm.
 * @example
 * const y = new RMSNorm({ size: 8 }).apply(tf.ones([1, 3, 8])) as tf.Tensor;
 */
export class RMSNorm extends SpecLayer {
  /** @nocollapse */
  static className = 'Mamba2RMSNorm';
  readonly size: number;
  readonly epsilon: number;

  constructor(args: RMSNormArgs) {
    super(checkedArgs(TABLE, args, ['size']));
    this.size = args.size;
    this.epsilon = args.epsilon ?? 1e-5;
  }

  protected override weightSpecs(): WeightSpec[] {
    return [{ name: 'weight', shape: [this.size], role: 'small', init: { kind: 'ones' } }];
  }

  /** The same maths over given weights. */
  forward(x: tf.Tensor, weights: Weights): tf.Tensor {
    return rmsNorm(x, tensor(weights, 'weight'), this.epsilon);
  }

  override call(inputs: tf.Tensor | tf.Tensor[]): tf.Tensor {
    return this.forward(single(inputs), this.weightMap());
  }

  override getConfig(): tf.serialization.ConfigDict {
    return { ...super.getConfig(), size: this.size, epsilon: this.epsilon };
  }
}
tf.serialization.registerClass(RMSNorm);
