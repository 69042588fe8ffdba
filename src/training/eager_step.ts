/** The training step run op by op, on any backend. */
import * as tf from '@tensorflow/tfjs';
import { DisposedError } from '../base/errors.js';
import { type AdamWSettings, adamwSettings, adamwUpdate, corrections, meanAndClip } from './adamw.js';
import type { PreparedBatch } from './batch.js';
import { lossAndGradients, lossSum } from './objective.js';
import {
  batchTensors,
  countItems,
  type Moments,
  type StepOptions,
  type StepResult,
  type TrainingStep,
} from './step.js';
import type { Trainable } from './trainable.js';

/** See TrainingStep. Trains the model's own variables in place. */
export class EagerStep implements TrainingStep {
  readonly engine = 'eager';
  private count = 0;
  private readonly settings: AdamWSettings;
  private readonly variables: ReadonlyMap<string, tf.Variable>;
  private readonly state = new Map<string, { first: tf.Tensor; second: tf.Tensor }>();
  private disposed = false;

  constructor(
    private readonly target: Trainable,
    private readonly options: StepOptions = {},
  ) {
    this.settings = adamwSettings(options);
    this.variables = target.trainable();
    for (const [name, variable] of this.variables)
      this.state.set(name, { first: tf.zerosLike(variable), second: tf.zerosLike(variable) });
  }

  expect(): void {}

  get steps(): number {
    return this.count;
  }

  async step(batches: readonly PreparedBatch[], learningRate: number, seed: number): Promise<StepResult> {
    if (this.disposed) throw new DisposedError('This training step was disposed');
    const items = countItems(batches);
    const names = [...this.variables.keys()];
    const tensors = [...this.variables.values()];
    return tf.tidy(() => {
      let sum = 0;
      let gradients: tf.Tensor[] | null = null;
      batches.forEach((batch, i) => {
        const made: tf.Tensor[] = tf.tidy(() => {
          const random = tf.tensor1d([seed, i], 'int32');
          const part = lossAndGradients(this.target, names, tensors, this.target.frozen(), batchTensors(batch), {
            ...this.options,
            seed: random,
          });
          sum += part.loss.dataSync()[0]!;
          return gradients ? part.gradients.map((g, k) => tf.add(g, gradients![k]!)) : part.gradients;
        });
        tf.dispose(gradients ?? []);
        gradients = made;
      });
      const sums = gradients!;
      const { norm, scale } = meanAndClip(sums, tf.scalar(items), this.settings.max_grad_norm);
      const grad_norm = norm.dataSync()[0]!;
      const loss = sum / items;
      if (Number.isFinite(loss) && Number.isFinite(grad_norm)) this.update(sums, scale, learningRate);
      return { loss, grad_norm, items };
    });
  }

  private update(sums: readonly tf.Tensor[], scale: tf.Scalar, learningRate: number): void {
    const { settings } = this;
    this.count++;
    const rate = { learningRate, ...corrections(settings, this.count) };
    [...this.variables].forEach(([name, value], i) => {
      const { first, second } = this.state.get(name)!;
      tf.tidy(() => {
        const next = adamwUpdate({ name, value, gradient: sums[i]!, first, second }, settings, rate, scale);
        value.assign(next.value);
        this.state.set(name, { first: tf.keep(next.first), second: tf.keep(next.second) });
      });
      tf.dispose([first, second]);
    });
  }

  async evaluate(batch: PreparedBatch): Promise<number> {
    return tf.tidy(
      () =>
        lossSum(this.target, Object.fromEntries(this.variables), this.target.frozen(), batchTensors(batch), {
          grads: false,
        }).dataSync()[0]!,
    );
  }

  sync(): void {}
  refresh(): void {}

  moments(name: string): Moments {
    const { first, second } = this.state.get(name)!;
    return { first: first.dataSync<'float32'>().slice(), second: second.dataSync<'float32'>().slice() };
  }

  async restore(steps: number, moments: (name: string) => Moments): Promise<void> {
    this.count = steps;
    for (const [name, variable] of this.variables) {
      const { first, second } = moments(name);
      tf.dispose([this.state.get(name)!.first, this.state.get(name)!.second]);
      this.state.set(name, { first: tf.tensor(first, variable.shape), second: tf.tensor(second, variable.shape) });
    }
  }

  dispose(): void {
    if (this.disposed) return;
    this.disposed = true;
    for (const { first, second } of this.state.values()) tf.dispose([first, second]);
    this.state.clear();
  }
}
