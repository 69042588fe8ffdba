/**
 * AdamW with global gradient clipping, as PyTorch has it (torch.optim.AdamW, clip_grad_norm_): pure functions of tensors, so that an eager
 * step, a compiled program and the optimizer of tfjs share them.
 */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError } from '../base/errors.js';

/** The optimizer of a step: AdamW as PyTorch has it. */
export interface AdamWSettings {
  /** Default 0.9. */
  beta1: number;
  /** Default 0.999. */
  beta2: number;
  /** Default 1e-8. */
  epsilon: number;
  /** Decoupled decay. Default 0. */
  weight_decay: number;
  /** Which tensors decay. Default: those of two or more axes, so not biases, norms, A_log, D and dt_bias. */
  decays: (name: string, shape: readonly number[]) => boolean;
  /** Largest global norm of the gradients; null for no clipping. Default 1. */
  max_grad_norm: number | null;
}

/** Settings with defaults filled in. */
export function adamwSettings(options: Partial<AdamWSettings>): AdamWSettings {
  const settings: AdamWSettings = {
    beta1: options.beta1 ?? 0.9,
    beta2: options.beta2 ?? 0.999,
    epsilon: options.epsilon ?? 1e-8,
    weight_decay: options.weight_decay ?? 0,
    decays: options.decays ?? decaysByDefault,
    max_grad_norm: options.max_grad_norm === undefined ? 1 : options.max_grad_norm,
  };
  const check = (key: string, value: number, fine: boolean, want: string): void => {
    if (!fine) throw new ArgumentError(`AdamW: ${key} is ${value}, expected ${want}`, { [key]: value });
  };
  check('beta1', settings.beta1, settings.beta1 >= 0 && settings.beta1 < 1, 'a number in [0, 1)');
  check('beta2', settings.beta2, settings.beta2 >= 0 && settings.beta2 < 1, 'a number in [0, 1)');
  check('epsilon', settings.epsilon, settings.epsilon > 0, 'a positive number');
  check('weight_decay', settings.weight_decay, settings.weight_decay >= 0, '0 or more');
  if (settings.max_grad_norm !== null)
    check('max_grad_norm', settings.max_grad_norm, settings.max_grad_norm > 0, 'a positive number or null');
  return settings;
}

/** A_log, D, dt_bias, biases and norms never decay (spec D29); these are the tensors of one axis. */
export function decaysByDefault(_name: string, shape: readonly number[]): boolean {
  return shape.length >= 2;
}

/** The sum of all squares, a scalar. */
export function squareSum(gradients: readonly tf.Tensor[]): tf.Scalar {
  // rows by a product with ones: compiled code then reads a matrix at the speed of memory, ten times that of a plain sum
  const sum = (x: tf.Tensor): tf.Tensor => {
    if (x.rank < 2) return tf.sum(x);
    const last = x.shape[x.rank - 1]!;
    return tf.sum(tf.matMul(tf.reshape(x, [x.size / last, last]), tf.ones([last, 1])));
  };
  return tf.tidy(() => tf.addN(gradients.map((g) => sum(tf.square(g)))) as tf.Scalar);
}

/** sqrt of the sum of all squares, a scalar. */
export function globalNorm(gradients: readonly tf.Tensor[]): tf.Scalar {
  return tf.tidy(() => tf.sqrt(squareSum(gradients)) as tf.Scalar);
}

/** min(1, maxNorm / (norm + 1e-6)), the factor of clip_grad_norm_. */
export function clipFactor(norm: tf.Scalar, maxNorm: number): tf.Scalar {
  return tf.tidy(() => tf.minimum(1, tf.div(maxNorm, tf.add(norm, 1e-6))) as tf.Scalar);
}

/** What the updates of one step have in common. */
interface AdamWRate {
  learningRate: number | tf.Scalar;
  /** 1 - beta1^t and 1 - beta2^t of this step. */
  correction1: number | tf.Scalar;
  correction2: number | tf.Scalar;
}

/** The bias corrections of step t, counted from 1. */
export function corrections(
  { beta1, beta2 }: Pick<AdamWSettings, 'beta1' | 'beta2'>,
  t: number,
): { correction1: number; correction2: number } {
  return { correction1: 1 - beta1 ** t, correction2: 1 - beta2 ** t };
}

/**
 * The norm of the mean gradients, and what their sums are multiplied by: the mean, made smaller where its norm is above the largest.
 * @param items how many positions were summed over
 */
export function meanAndClip(
  sums: readonly tf.Tensor[],
  items: tf.Scalar,
  maxNorm: number | null,
): { norm: tf.Scalar; scale: tf.Scalar } {
  return clipOf(globalNorm(sums), items, maxNorm);
}

/** As meanAndClip(). @param total norm of the sums */
export function clipOf(
  total: tf.Scalar,
  items: tf.Scalar,
  maxNorm: number | null,
): { norm: tf.Scalar; scale: tf.Scalar } {
  const mean = tf.reciprocal(items) as tf.Scalar;
  const norm = tf.mul(total, mean) as tf.Scalar;
  return { norm, scale: maxNorm === null ? mean : tf.mul(mean, clipFactor(norm, maxNorm)) };
}

/** A variable that is trained, as one step sees it. */
interface AdamWParameter {
  name: string;
  value: tf.Tensor;
  gradient: tf.Tensor;
  first: tf.Tensor;
  second: tf.Tensor;
}

/**
 * One variable's update: value, first and second moment after the step; all new tensors.
 * @param scale the gradient is multiplied by it @param fine bool scalar; when false at run time, all three stay as they were
 */
export function adamwUpdate(
  { name, value, gradient: given, first, second }: AdamWParameter,
  settings: AdamWSettings,
  rate: AdamWRate,
  scale: tf.Scalar | null,
  fine?: tf.Tensor,
): { value: tf.Tensor; first: tf.Tensor; second: tf.Tensor } {
  const or = (next: tf.Tensor, old: tf.Tensor): tf.Tensor => (fine ? tf.where(fine, next, old) : next);
  const { beta1, beta2 } = settings;
  const { learningRate: lr } = rate;
  const decay = settings.decays(name, value.shape) ? settings.weight_decay : 0;
  return tf.tidy(() => {
    const gradient = scale ? tf.mul(given, scale) : given;
    const decayed = decay > 0 ? tf.sub(value, tf.mul(value, tf.mul(lr, decay))) : value;
    // the value is made of the moments as they are kept: compiled code then reads those, and not the gradient and the old moments again
    const m = or(tf.add(tf.mul(first, beta1), tf.mul(gradient, 1 - beta1)), first);
    const v = or(tf.add(tf.mul(second, beta2), tf.mul(tf.square(gradient), 1 - beta2)), second);
    const denominator = tf.add(tf.sqrt(tf.div(v, rate.correction2)), settings.epsilon);
    const moved = tf.sub(decayed, tf.div(tf.mul(tf.div(m, rate.correction1), lr), denominator));
    return { value: or(moved, value), first: m, second: v };
  });
}
