/**
 * AdamW with global gradient clipping, as PyTorch has it (torch.optim.AdamW, clip_grad_norm_). The maths is a pure
 * function of tensors, so that an eager step and a compiled program share it; the optimizer keeps the moments.
 */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError } from '../base/errors.js';

export interface AdamWArgs {
  /** Default 1e-3. */
  learningRate?: number;
  /** Default 0.9. */
  beta1?: number;
  /** Default 0.999. */
  beta2?: number;
  /** Default 1e-8, as PyTorch (tfjs' Adam has 1e-7). */
  epsilon?: number;
  /** Decoupled decay. Default 0.01. */
  weightDecay?: number;
  /** Which variables decay. Default: those of two or more axes whose name is not that of a bias, norm or SSM parameter. */
  decays?: (name: string, shape: readonly number[]) => boolean;
  /** Largest global norm of the gradients; null (default) for no clipping. */
  maxGradNorm?: number | null;
}

/** A_log, D, dt_bias, biases and norms never decay (spec D29); these are the tensors of one axis. */
export function decaysByDefault(_name: string, shape: readonly number[]): boolean {
  return shape.length >= 2;
}

/** sqrt of the sum of all squares, a scalar. */
export function globalNorm(gradients: readonly tf.Tensor[]): tf.Scalar {
  // rows by a product with ones: compiled code then reads a matrix at the speed of memory, ten times that of a plain sum
  const sum = (x: tf.Tensor): tf.Tensor => {
    if (x.rank < 2) return tf.sum(x);
    const last = x.shape[x.rank - 1]!;
    return tf.sum(tf.matMul(tf.reshape(x, [x.size / last, last]), tf.ones([last, 1])));
  };
  return tf.tidy(() => tf.sqrt(tf.addN(gradients.map((g) => sum(tf.square(g))))) as tf.Scalar);
}

/** min(1, maxNorm / (norm + 1e-6)), the factor of clip_grad_norm_. */
export function clipFactor(norm: tf.Scalar, maxNorm: number): tf.Scalar {
  return tf.tidy(() => tf.minimum(1, tf.div(maxNorm, tf.add(norm, 1e-6))) as tf.Scalar);
}

export interface AdamWStep {
  learningRate: number | tf.Scalar;
  beta1: number;
  beta2: number;
  epsilon: number;
  /** 0 where the variable does not decay. */
  weightDecay: number;
  /** 1 - beta1^t and 1 - beta2^t of this step. */
  correction1: number | tf.Scalar;
  correction2: number | tf.Scalar;
}

/**
 * One variable's update: value, first and second moment after the step; all new tensors.
 * @param fine bool scalar; when false at run time, all three stay as they were
 */
export function adamwUpdate(
  value: tf.Tensor,
  gradient: tf.Tensor,
  first: tf.Tensor,
  second: tf.Tensor,
  step: AdamWStep,
  fine?: tf.Tensor,
): { value: tf.Tensor; first: tf.Tensor; second: tf.Tensor } {
  const or = (next: tf.Tensor, old: tf.Tensor): tf.Tensor => (fine ? tf.where(fine, next, old) : next);
  return tf.tidy(() => {
    const { learningRate: lr, beta1, beta2 } = step;
    const decayed = step.weightDecay > 0 ? tf.sub(value, tf.mul(value, tf.mul(lr, step.weightDecay))) : value;
    // the value is made of the moments as they are kept: compiled code then reads those, and not the gradient and the old moments again
    const m = or(tf.add(tf.mul(first, beta1), tf.mul(gradient, 1 - beta1)), first);
    const v = or(tf.add(tf.mul(second, beta2), tf.mul(tf.square(gradient), 1 - beta2)), second);
    const denominator = tf.add(tf.sqrt(tf.div(v, step.correction2)), step.epsilon);
    const moved = tf.sub(decayed, tf.div(tf.mul(tf.div(m, step.correction1), lr), denominator));
    return { value: or(moved, value), first: m, second: v };
  });
}

/**
 * AdamW as a tfjs optimizer: use it with minimize(), applyGradients() or model.compile().
 * @throws ArgumentError for settings out of range
 * @example
 * const optimizer = new AdamW({ learningRate: 1e-3, maxGradNorm: 1 });
 * optimizer.minimize(() => loss(), false, variables);
 */
export class AdamW extends tf.Optimizer {
  /** @nocollapse */
  static className = 'AdamW';
  /** tfjs takes anything with an optimizer's methods for an instance of its Optimizer, and classes inherit that. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    return Object.prototype.isPrototypeOf.call(this.prototype, value as object);
  }
  learningRate: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  readonly weightDecay: number;
  readonly maxGradNorm: number | null;
  readonly decays: (name: string, shape: readonly number[]) => boolean;
  private readonly moments = new Map<string, { first: tf.Variable; second: tf.Variable }>();
  private steps = 0;
  /** Global norm of the gradients of the last step, before clipping; null when clipping is off. */
  lastGradNorm: number | null = null;

  constructor(args: AdamWArgs = {}) {
    super();
    this.learningRate = args.learningRate ?? 1e-3;
    this.beta1 = args.beta1 ?? 0.9;
    this.beta2 = args.beta2 ?? 0.999;
    this.epsilon = args.epsilon ?? 1e-8;
    this.weightDecay = args.weightDecay ?? 0.01;
    this.maxGradNorm = args.maxGradNorm ?? null;
    this.decays = args.decays ?? decaysByDefault;
    const positive = { learningRate: this.learningRate, epsilon: this.epsilon };
    for (const [key, value] of Object.entries(positive)) {
      if (!(value >= 0)) throw new ArgumentError(`AdamW: ${key} is ${value}, expected 0 or more`, { [key]: value });
    }
    for (const key of ['beta1', 'beta2'] as const) {
      if (!(this[key] >= 0 && this[key] < 1))
        throw new ArgumentError(`AdamW: ${key} is ${this[key]}, expected a number in [0, 1)`, { [key]: this[key] });
    }
  }

  /** How many steps were taken. */
  override get iterations(): number {
    return this.steps;
  }

  override applyGradients(variableGradients: tf.NamedTensorMap | { name: string; tensor: tf.Tensor }[]): void {
    const named: [string, tf.Tensor][] = Array.isArray(variableGradients)
      ? variableGradients.map(({ name, tensor }) => [name, tensor])
      : Object.entries(variableGradients);
    const present = named.filter(([, gradient]) => gradient != null);
    if (present.length === 0) return;
    this.steps++;
    const registered = tf.engine().registeredVariables;
    tf.tidy(() => {
      let factor: tf.Scalar | null = null;
      if (this.maxGradNorm !== null) {
        const norm = globalNorm(present.map(([, gradient]) => gradient));
        this.lastGradNorm = norm.dataSync()[0]!;
        factor = clipFactor(norm, this.maxGradNorm);
      }
      for (const [name, gradient] of present) {
        const variable = registered[name];
        if (!variable) throw new ArgumentError(`AdamW: no variable is called '${name}'`, { name });
        const { first, second } = this.momentsOf(name, variable);
        const next = adamwUpdate(variable, factor ? tf.mul(gradient, factor) : gradient, first, second, {
          learningRate: this.learningRate,
          beta1: this.beta1,
          beta2: this.beta2,
          epsilon: this.epsilon,
          weightDecay: this.decays(name, variable.shape) ? this.weightDecay : 0,
          correction1: 1 - this.beta1 ** this.steps,
          correction2: 1 - this.beta2 ** this.steps,
        });
        variable.assign(next.value);
        first.assign(next.first);
        second.assign(next.second);
      }
    });
  }

  private momentsOf(name: string, variable: tf.Variable): { first: tf.Variable; second: tf.Variable } {
    let pair = this.moments.get(name);
    if (!pair) {
      pair = tf.tidy(() => ({
        first: tf.variable(tf.zerosLike(variable), false),
        second: tf.variable(tf.zerosLike(variable), false),
      }));
      this.moments.set(name, pair);
    }
    return pair;
  }

  override dispose(): void {
    for (const { first, second } of this.moments.values()) tf.dispose([first, second]);
    this.moments.clear();
  }

  getConfig(): tf.serialization.ConfigDict {
    const { learningRate, beta1, beta2, epsilon, weightDecay, maxGradNorm } = this;
    return { learningRate, beta1, beta2, epsilon, weightDecay, maxGradNorm };
  }
}
tf.serialization.registerClass(AdamW);
