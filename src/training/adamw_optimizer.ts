/** AdamW as an optimizer of tfjs, which keeps the moments. */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError } from '../base/errors.js';
import * as kinds from '../base/option_kinds.js';
import { OptionTable } from '../base/options.js';
import { type AdamWSettings, adamwUpdate, clipFactor, corrections, decaysByDefault, globalNorm } from './adamw.js';

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

const TABLE = new OptionTable<AdamWArgs>(
  'new AdamW()',
  {
    learningRate: { kind: kinds.number({ min: 0 }), default: 1e-3 },
    beta1: { kind: kinds.number({ min: 0, below: 1 }), default: 0.9 },
    beta2: { kind: kinds.number({ min: 0, below: 1 }), default: 0.999 },
    epsilon: { kind: kinds.number({ min: 0 }), default: 1e-8 },
    weightDecay: { kind: kinds.number({ min: 0 }), default: 0.01 },
    decays: { kind: kinds.func },
    maxGradNorm: { kind: kinds.orNull(kinds.number({ above: 0 })), default: null },
  },
  {
    others: {
      lr: 'learningRate',
      learning_rate: 'learningRate',
      beta_1: 'beta1',
      beta_2: 'beta2',
      betas: { why: 'they are beta1 and beta2' },
      eps: 'epsilon',
      weight_decay: 'weightDecay',
      decay: 'weightDecay',
      max_grad_norm: 'maxGradNorm',
      globalClipnorm: 'maxGradNorm',
      global_clipnorm: 'maxGradNorm',
      clipnorm: { why: 'gradients are clipped all together: maxGradNorm', off: [null] },
      clipvalue: { why: 'gradients are clipped all together: maxGradNorm', off: [null] },
      amsgrad: { why: 'there is AdamW alone', off: [false] },
      use_ema: { why: 'no averages of weights are kept', off: [false] },
    },
  },
);

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
    TABLE.checkObject(args);
    TABLE.check(args);
    super();
    this.learningRate = args.learningRate ?? 1e-3;
    this.beta1 = args.beta1 ?? 0.9;
    this.beta2 = args.beta2 ?? 0.999;
    this.epsilon = args.epsilon ?? 1e-8;
    this.weightDecay = args.weightDecay ?? 0.01;
    this.maxGradNorm = args.maxGradNorm ?? null;
    this.decays = args.decays ?? decaysByDefault;
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
      const settings = stepSettings(this);
      const rate = { learningRate: this.learningRate, ...corrections(settings, this.steps) };
      for (const [name, gradient] of present) {
        const value = registered[name];
        if (!value) throw new ArgumentError(`AdamW: no variable is called '${name}'`, { name });
        const { first, second } = this.momentsOf(name, value);
        const next = adamwUpdate({ name, value, gradient, first, second }, settings, rate, factor);
        value.assign(next.value);
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

/** The same options by the names that a training step has for them. */
export function stepSettings(adamw: AdamW): AdamWSettings {
  const { beta1, beta2, epsilon, decays, weightDecay, maxGradNorm } = adamw;
  return { beta1, beta2, epsilon, decays, weight_decay: weightDecay, max_grad_norm: maxGradNorm };
}
