/** The training step run op by op, on any backend. */
import { checkBatchMemory } from './batch_memory.js';
import * as tf from '@tensorflow/tfjs';
import './wasm_kernels.js';
import { DisposedError } from '../base/errors.js';
import { someAtATime } from '../base/some_at_a_time.js';
import { inPieces, type Pieces } from '../base/pieces.js';
import { Turns } from '../base/turns.js';
import { type AdamWSettings, adamwSettings, adamwUpdate, corrections, meanAndClip } from './adamw.js';
import type { PreparedBatch } from './batch.js';
import { lossAndGradients, lossInPieces } from './objective.js';
import {
  batchTensors,
  countItems,
  type Moments,
  type StepOptions,
  type StepResult,
  type TrainingStep,
} from './step.js';
import type { Trainable } from './trainable.js';

/** A variable after a step: its value and moments, tensors of their own. */
interface Next {
  name: string;
  value: tf.Tensor;
  first: tf.Tensor;
  second: tf.Tensor;
}

const tensorsOf = (all: readonly Next[]): tf.Tensor[] =>
  all.flatMap(({ value, first, second }) => [value, first, second]);

/** See TrainingStep. Trains the model's own variables in place. */
export class EagerStep implements TrainingStep {
  readonly engine = 'eager';
  private count = 0;
  private readonly settings: AdamWSettings;
  private readonly variables: ReadonlyMap<string, tf.Variable>;
  private readonly state = new Map<string, { first: tf.Tensor; second: tf.Tensor }>();
  private disposed = false;
  private readonly turns = new Turns();

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
    return this.inTurn(async () => {
      for (const batch of batches) checkBatchMemory(this.target.network, batch, true);
      const work = this.work(batches, countItems(batches), learningRate, seed);
      const { next, ...result } = await inPieces(work, { alive: this.alive, keeps: ({ next }) => tensorsOf(next) });
      if (next.length > 0) await this.change(next);
      return result;
    });
  }

  private *work(
    batches: readonly PreparedBatch[],
    items: number,
    learningRate: number,
    seed: number,
  ): Pieces<StepResult & { next: Next[] }> {
    const names = [...this.variables.keys()];
    const tensors = [...this.variables.values()];
    let sum = 0;
    let sums: tf.Tensor[] | null = null;
    for (const [i, batch] of batches.entries()) {
      const options = { ...this.options, seed: tf.tensor1d([seed, i], 'int32') };
      const frozen = this.target.frozen();
      const { loss, gradients } = yield* lossAndGradients(
        this.target,
        names,
        tensors,
        frozen,
        batchTensors(batch),
        options,
      );
      sum += loss.dataSync()[0]!;
      if (!sums) {
        sums = gradients;
        continue;
      }
      for (const [k, gradient] of gradients.entries()) {
        const before: tf.Tensor = sums[k]!;
        sums[k] = tf.add(before, gradient);
        tf.dispose([before, gradient]);
      }
    }
    yield;
    const { norm, scale } = tf.tidy(() => meanAndClip(sums!, tf.scalar(items), this.settings.max_grad_norm));
    const grad_norm = norm.dataSync()[0]!;
    const loss = sum / items;
    const fine = Number.isFinite(loss) && Number.isFinite(grad_norm);
    return { loss, grad_norm, items, next: fine ? yield* this.updated(sums!, scale, learningRate) : [] };
  }

  /** All variables after the step, one by one, between which others run: nothing is changed yet. Disposes of the gradients. */
  private *updated(sums: readonly tf.Tensor[], scale: tf.Scalar, learningRate: number): Pieces<Next[]> {
    const { settings } = this;
    const rate = { learningRate, ...corrections(settings, this.count + 1) };
    const all: Next[] = [];
    for (const [i, [name, value]] of [...this.variables].entries()) {
      yield;
      const gradient = sums[i]!;
      all.push({ name, ...adamwUpdate({ name, value, gradient, ...this.state.get(name)! }, settings, rate, scale) });
      gradient.dispose();
    }
    return all;
  }

  /** The update itself: in one piece, and not while somebody is in the middle of reading the weights. */
  private async change(all: readonly Next[]): Promise<void> {
    await this.target.model.weights.turns.take(() => {
      if (this.disposed) tf.dispose(tensorsOf(all));
      this.alive();
      this.count++;
      for (const { name, value, first, second } of all) {
        this.variables.get(name)!.assign(value);
        value.dispose();
        const before = this.state.get(name)!;
        this.state.set(name, { first, second });
        tf.dispose([before.first, before.second]);
      }
    });
  }

  async evaluate(batch: PreparedBatch): Promise<number> {
    const { target, variables } = this;
    return this.inTurn(() => {
      checkBatchMemory(target.network, batch, false);
      const work = function* (): Pieces<number> {
        const trained = Object.fromEntries(variables);
        const loss = yield* lossInPieces(target, trained, target.frozen(), batchTensors(batch), { grads: false });
        return loss.dataSync()[0]!;
      };
      return inPieces(work(), { alive: this.alive });
    });
  }

  private readonly alive = (): void => {
    if (this.disposed) throw new DisposedError('This training step was disposed');
  };

  /** Steps follow one another, however many are asked for at once; the event loop runs between layers. */
  private inTurn<T>(work: () => Promise<T>): Promise<T> {
    return this.turns.take(() => {
      this.alive();
      return work();
    });
  }

  async sync(): Promise<void> {}
  syncNow(): void {}
  async refresh(): Promise<void> {}

  async moments(name: string): Promise<Moments> {
    return this.inTurn(async () => {
      const copy = async (tensor: tf.Tensor): Promise<Float32Array> => {
        const values = await tensor.data<'float32'>();
        const own = new Float32Array(values.length);
        await someAtATime(values.length, (begin, end) => own.set(values.subarray(begin, end), begin));
        return own;
      };
      const { first, second } = this.state.get(name)!;
      return { first: await copy(first), second: await copy(second) };
    });
  }

  async restore(steps: number, moments: (name: string) => Moments): Promise<void> {
    await this.inTurn(async () => {
      this.count = steps;
      for (const [name, variable] of this.variables) {
        const { first, second } = moments(name);
        tf.dispose([this.state.get(name)!.first, this.state.get(name)!.second]);
        this.state.set(name, { first: tf.tensor(first, variable.shape), second: tf.tensor(second, variable.shape) });
      }
    });
  }

  dispose(): void {
    if (this.disposed) return;
    this.disposed = true;
    for (const { first, second } of this.state.values()) tf.dispose([first, second]);
    this.state.clear();
  }
}
