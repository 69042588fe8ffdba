/** Trainer: a training run from examples to snapshots (folders checkpoint-N), by the names of transformers. */
import { askedAhead } from '../base/ahead.js';
import { letOthersRun } from '../base/async.js';
import * as path from 'node:path';
import { onStopSignal, type StopSignal } from '../base/stop_signals.js';
import { ArgumentError } from '../base/errors.js';
import { quote } from '../base/quote.js';
import { plannedSteps, type TrainingArguments, trainingArguments, updatesOf } from './arguments.js';
import type { When } from './arguments_table.js';
import { batchShapes, preparedBatches, type PreparedBatch } from './batch.js';
import {
  type LogEntry,
  ProgressCallback,
  type TrainerCallback,
  type TrainerControl,
  type TrainerState,
} from './callbacks.js';
import { listCheckpoints, loadSnapshot, removeUnfinished, saveSnapshot } from './snapshots.js';
import { saveModel } from './save_model.js';
import { createStep } from './create_step.js';
import { DataLoader, type ExampleSource, sourceKind, type TokenizedExample } from './data/index.js';
import { learnable } from './data/learnable.js';
import { Dataset, type IterableDataset } from './datasets/index.js';
import { meanLoss } from './evaluate.js';
import { RunLogs, writeCurve } from './logs.js';
import { notFinite, positionOf } from './position.js';
import { scheduleFactor } from './schedules.js';
import type { TrainingStep } from './step.js';
import { aloneIn } from './output_lock.js';
import { causalOf, type TrainableModel, trainableOf } from './trainable.js';
import { requireOptions, TRAIN_TABLE, TRAINER_TABLE, type TrainerOptions, type TrainOptions, type TrainOutput } from './trainer_options.js'; // prettier-ignore

/** A data set's rows as a list; what they hold is judged by learnable(). */
function examplesOf(source: ExampleSource | Dataset | IterableDataset): ExampleSource {
  return (source instanceof Dataset ? source.to_list() : source) as ExampleSource;
}

/**
 * Trains a model: gradient accumulation, schedules, evaluation, logs, snapshots and exact resumption.
 *
 * A run that is resumed from a snapshot gives the losses that the unbroken one would have given, to the bit. SIGINT, SIGTERM
 * and SIGHUP end the run after the step under way, with a snapshot. Of two runs in one output_dir the second is refused.
 *
 * @example
 * const trainer = new Trainer({ model, args: { output_dir: 'out', max_steps: 100 }, train_dataset });
 * const { training_loss } = await trainer.train();
 */
export class Trainer {
  readonly args: TrainingArguments;
  readonly model: TrainableModel;
  state: TrainerState = {
    global_step: 0,
    max_steps: 0,
    epoch: 0,
    num_input_tokens_seen: 0,
    log_history: [],
    best_metric: null,
    best_step: null,
  };
  private readonly control: TrainerControl = { should_stop: false, should_save: false, should_evaluate: false };
  private readonly callbacks: readonly TrainerCallback[];
  private step: TrainingStep | null = null;
  private announced = false;
  /** The step of the last snapshot of this run; output_dir may hold those of others. */
  private saved: number | null = null;
  private logs: RunLogs | null = null;

  /** @throws ArgumentError for wrong options */
  constructor(private readonly options: TrainerOptions) {
    TRAINER_TABLE.check(options);
    requireOptions(TRAINER_TABLE, options, ['model', 'args']);
    this.args = trainingArguments(options.args);
    this.model = options.model;
    if (this.args.eval_strategy !== 'no' && !options.eval_dataset) {
      throw new ArgumentError(
        `Trainer: eval_strategy is '${this.args.eval_strategy}' and there is no eval_dataset; give one, or leave eval_strategy at 'no'`,
        { eval_strategy: this.args.eval_strategy },
      );
    }
    if (this.args.eval_on_start && !options.eval_dataset)
      throw new ArgumentError('Trainer: eval_on_start is true and there is no eval_dataset; give one', {
        option: 'eval_on_start',
      });
    this.callbacks = [...(this.args.disable_tqdm ? [] : [new ProgressCallback()]), ...(options.callbacks ?? [])];
  }

  /** Examples of training; subclasses make them from text. */
  protected async trainData(): Promise<ExampleSource> {
    if (!this.options.train_dataset) throw new ArgumentError('Trainer: train() needs train_dataset', {});
    return examplesOf(this.options.train_dataset);
  }

  protected async evalData(): Promise<ExampleSource | null> {
    return this.options.eval_dataset ? examplesOf(this.options.eval_dataset) : null;
  }

  /** Examples given to evaluate(); subclasses make them from text. */
  protected async given(data: unknown): Promise<ExampleSource> {
    if (sourceKind.ok(data)) return examplesOf(data as ExampleSource | Dataset);
    throw new ArgumentError(`evaluate() got ${quote(data)}; expected ${sourceKind.expected}.`, { got: data });
  }

  private loader(examples: ExampleSource, training: boolean): DataLoader {
    const { args, options } = this;
    const source = learnable(examples);
    const longest = Array.isArray(source)
      ? (source as readonly TokenizedExample[]).reduce((most, e) => Math.max(most, e.input_ids.length), 1)
      : undefined;
    const max_length = options.max_length ?? longest;
    if (max_length === undefined) throw new ArgumentError('Trainer: a stream of examples needs max_length', {});
    return new DataLoader(source, {
      batch_size: training ? args.per_device_train_batch_size : args.per_device_eval_batch_size,
      seed: args.data_seed ?? args.seed,
      shuffle: training,
      pad_token_id:
        options.pad_token_id ??
        (options.processing_class ?? options.tokenizer)?.pad_token_id ??
        causalOf(this.model).config.pad_token_id ??
        0,
      padding_side: options.padding_side,
      max_length,
      packing: options.packing,
      bucket: args.group_by_length,
      drop_last: training && args.dataloader_drop_last,
    });
  }

  /** The step, made when first needed. */
  private training(): TrainingStep {
    const { args } = this;
    this.step ??= createStep(trainableOf(this.model), {
      beta1: args.adam_beta1,
      beta2: args.adam_beta2,
      epsilon: args.adam_epsilon,
      weight_decay: args.weight_decay,
      max_grad_norm: args.max_grad_norm === 0 ? null : args.max_grad_norm,
      bf16: args.bf16,
      gradient_checkpointing: args.gradient_checkpointing,
      engine: args.engine,
      xla: args.torch_compile,
      replicas: {
        workers: args.workers,
        data_parallel: args.data_parallel,
        rows: args.per_device_train_batch_size,
        on_notice: this.options.on_warning ?? ((message) => void process.stderr.write(`${message}\n`)),
      },
    });
    return this.step;
  }

  private async each(call: (callback: TrainerCallback) => void | Promise<void> | undefined): Promise<void> {
    for (const callback of this.callbacks) await call(callback);
  }

  private async log(values: Record<string, number>, evaluation = false): Promise<void> {
    const { args, state, control } = this;
    const entry = { step: state.global_step, epoch: Number(state.epoch.toFixed(6)), ...values } as LogEntry;
    state.log_history.push(entry);
    this.logs?.append(entry);
    await this.each((c) => c.on_log?.(args, state, control, entry));
    if (evaluation) await this.each((c) => c.on_evaluate?.(args, state, control, entry));
  }

  /**
   * Trains until the epochs or steps are done, a callback or a signal stops it.
   *
   * @throws TrainingError when loss or gradients are not finite, naming step and batch; the model is then as after the
   *   last good step. SaveError when a snapshot cannot be written.
   */
  async train(options: TrainOptions = {}): Promise<TrainOutput> {
    TRAIN_TABLE.check(options);
    return aloneIn(this.args.output_dir, () => this.trainAlone(options));
  }

  private async trainAlone(options: TrainOptions): Promise<TrainOutput> {
    const { args, control } = this;
    await removeUnfinished(args.output_dir);
    const loader = this.loader(await this.trainData(), true);
    const accumulation = args.gradient_accumulation_steps;
    const stepsOf = (epoch: number): number => Math.max(1, Math.ceil(loader.size(epoch) / accumulation));
    if (!loader.sized && args.max_steps < 0)
      throw new ArgumentError('Trainer: a stream has no length; set max_steps', {});
    const total = args.max_steps > 0 ? args.max_steps : plannedSteps(args.num_train_epochs, stepsOf);
    await this.announce();
    const resumed = await this.resume(options.resume_from_checkpoint);
    if (!resumed) {
      const start = { global_step: 0, epoch: 0, epoch_start: 0, num_input_tokens_seen: 0, log_history: [] };
      this.state = { ...this.state, ...start, since_log: undefined };
    }
    const { state } = this;
    state.max_steps = total;
    control.should_stop = false;
    this.logs = await RunLogs.open(args, state.log_history);

    let signal: StopSignal | null = null;
    const off = onStopSignal((name) => {
      signal = name;
      control.should_stop = true;
    });
    const began = performance.now();
    const totals = { loss: 0, steps: 0, tokens: 0 };
    let fed: boolean;
    try {
      await this.each((c) => c.on_train_begin?.(args, state, control));
      if (args.eval_on_start && state.global_step === 0) await this.evaluate();
      fed = await this.run(loader, total, accumulation, stepsOf, totals);
      if (args.save_strategy !== 'no' && state.global_step > 0) await this.save();
      await this.training().sync();
      await writeCurve(args, state.log_history);
    } finally {
      off();
      await this.each((c) => c.on_train_end?.(args, state, control));
    }
    const seconds = (performance.now() - began) / 1000;
    return {
      global_step: state.global_step,
      training_loss: totals.steps > 0 ? totals.loss / totals.steps : NaN,
      train_runtime: seconds,
      train_tokens_per_second: totals.tokens / seconds,
      stopped_by: signal ?? (control.should_stop ? 'callback' : fed ? null : 'data'),
    };
  }

  /** Declares the shapes of all batches to come, as far as they are known, so that nothing is compiled anew in the middle. */
  private async announce(): Promise<void> {
    if (this.announced) return;
    this.announced = true;
    const { args } = this;
    const step = this.training();
    if (step.engine !== 'compiled') return;
    const source = await this.trainData().catch(() => null);
    if (Array.isArray(source)) {
      const loader = this.loader(source, true);
      const accumulation = args.gradient_accumulation_steps;
      const epochs = args.max_steps > 0 ? (args.max_steps * accumulation) / loader.size(0) : args.num_train_epochs;
      step.expect(accumulation > 1 ? 'accumulate' : 'step', await batchShapes(loader, Math.min(Math.ceil(epochs), 20)));
    }
    const evaluation = await this.evalData();
    if (Array.isArray(evaluation)) step.expect('evaluate', await batchShapes(this.loader(evaluation, false), 1));
  }

  private async resume(from: string | boolean | null | undefined): Promise<boolean> {
    this.saved = null;
    if (from === undefined || from === null || from === false) return false;
    const own = listCheckpoints(this.args.output_dir);
    const dir = from === true ? own.at(-1)?.dir : from;
    if (dir === undefined) return false;
    this.state = await loadSnapshot(this.model, this.training(), dir);
    this.saved = own.find((c) => path.resolve(c.dir) === path.resolve(dir))?.step ?? null;
    return true;
  }

  /** The loop over epochs and steps. @returns false when a stream ended before the run did */
  private async run(
    loader: DataLoader,
    total: number,
    accumulation: number,
    stepsOf: (epoch: number) => number,
    totals: { loss: number; steps: number; tokens: number },
  ): Promise<boolean> {
    const { args, state, control } = this;
    const warmup = args.warmup_steps > 0 ? updatesOf(args.warmup_steps, total) : Math.ceil(total * args.warmup_ratio);
    const logged = (state.since_log ??= { loss: 0, steps: 0 });
    const timed = { tokens: 0, since: performance.now() };
    if (state.global_step >= total) return true;
    // where a resumed run goes on: whole epochs are skipped, then steps of the epoch under way
    let { epoch, done } = await positionOf(loader, state, accumulation, stepsOf);
    for (; state.global_step < total && !control.should_stop; epoch++) {
      const inEpoch = loader.sized ? stepsOf(epoch) : Infinity;
      let at = Math.max(0, state.global_step - done);
      const skip = at * accumulation;
      let group: PreparedBatch[] = [];
      let index = skip;
      const update = async (): Promise<void> => {
        const rate =
          args.learning_rate *
          scheduleFactor(args.lr_scheduler_type, state.global_step, { warmup_steps: warmup, total_steps: total });
        const { loss, grad_norm: gradNorm } = await this.training().step(
          group,
          rate,
          (args.seed * 65_537 + state.global_step) | 0,
        );
        if (!Number.isFinite(loss) || !Number.isFinite(gradNorm))
          throw notFinite(state.global_step + 1, epoch, [index - group.length, index - 1], loss, gradNorm);
        at++;
        state.global_step++;
        state.epoch = loader.sized ? epoch + at / inEpoch : epoch;
        state.epoch_start = done;
        const tokens = group.reduce((sum, b) => sum + b.tokens, 0);
        state.num_input_tokens_seen += tokens;
        for (const sum of [totals, logged]) {
          sum.loss += loss;
          sum.steps++;
        }
        for (const sum of [totals, timed]) sum.tokens += tokens;
        group = [];
        const due = (when: When, every: number): boolean =>
          (when === 'steps' && state.global_step % updatesOf(every, total) === 0) ||
          (when === 'epoch' && at === inEpoch);
        if (this.isLogged(due(args.logging_strategy, args.logging_steps) || state.global_step === total)) {
          const seconds = (performance.now() - timed.since) / 1000;
          await this.log({
            loss: logged.loss / logged.steps,
            grad_norm: gradNorm,
            learning_rate: rate,
            tokens_per_second: Math.round(timed.tokens / seconds),
          });
          Object.assign(logged, { loss: 0, steps: 0 });
          Object.assign(timed, { tokens: 0, since: performance.now() });
        }
        await this.each((c) => c.on_step_end?.(args, state, control));
        const evaluates = this.ripe() && due(args.eval_strategy, args.eval_steps ?? args.logging_steps);
        await this.act(evaluates, due(args.save_strategy, args.save_steps));
        // let signals through: eager steps never yield by themselves
        await letOthersRun();
      };
      // the next batch is made while the step before it runs
      for await (const prepared of askedAhead(
        preparedBatches(loader.batches(epoch, skip), causalOf(this.model).config.vocab_size),
        (total - state.global_step) * accumulation,
      )) {
        index++;
        group.push(prepared);
        if (index % accumulation !== 0) continue;
        await update();
        if (state.global_step >= total || control.should_stop) return true;
      }
      if (group.length > 0) await update();
      if (index === 0) {
        if (state.global_step === 0)
          throw new ArgumentError('Trainer: the stream of examples has none to learn from', {});
        this.options.on_warning?.(
          `The examples end at step ${state.global_step}, and max_steps is ${total}: the stream gives nothing a second time. The run ends here; a function that makes the stream begins it again.`,
        );
        return false;
      }
      // where a stream ends is known when it has
      if (!loader.sized && index > skip)
        await this.act(this.ripe() && args.eval_strategy === 'epoch', args.save_strategy === 'epoch');
      done += at;
    }
    return true;
  }

  /** Whether this update is logged. @param due by its number */
  private isLogged(due: boolean): boolean {
    const { logging_strategy, logging_first_step } = this.args;
    return logging_strategy !== 'no' && (due || (logging_first_step && this.state.global_step === 1));
  }

  /** Whether the time before the first evaluation is over. */
  private ripe(): boolean {
    const { eval_strategy, eval_delay } = this.args;
    return eval_delay <= (eval_strategy === 'epoch' ? this.state.epoch : this.state.global_step);
  }

  /** Evaluates and saves where that is due, or a callback asked for it. */
  private async act(evaluate: boolean, save: boolean): Promise<void> {
    const { control } = this;
    if (evaluate || control.should_evaluate) await this.evaluate();
    if (save || control.should_save) await this.save();
    control.should_evaluate = control.should_save = false;
  }

  /**
   * Mean loss over all positions of the evaluation data, and its perplexity.
   * @throws ArgumentError without evaluation data, or when no position of it counts
   */
  async evaluate(
    data?: ExampleSource | Dataset | IterableDataset,
  ): Promise<{ eval_loss: number; eval_perplexity: number; eval_tokens: number }> {
    const source = data === undefined ? await this.evalData() : await this.given(data);
    if (!source) throw new ArgumentError('Trainer: evaluate() needs eval_dataset', {});
    await this.announce();
    const { vocab_size } = causalOf(this.model).config;
    const { loss, items } = await meanLoss(this.training(), this.loader(source, false).batches(0), vocab_size);
    if (items === 0)
      throw new ArgumentError('Trainer: evaluate() was given a stream without a position that counts', {});
    const { state } = this;
    if (state.best_metric === null || loss < state.best_metric)
      [state.best_metric, state.best_step] = [loss, state.global_step];
    await this.log({ eval_loss: loss }, true);
    return { eval_loss: loss, eval_perplexity: Math.exp(loss), eval_tokens: items };
  }

  private async save(): Promise<void> {
    const { args, state, control } = this;
    if (this.saved === state.global_step) return;
    const dir = await saveSnapshot(this.model, this.training(), state, args.output_dir, args.save_total_limit);
    this.saved = state.global_step;
    await writeCurve(args, state.log_history);
    await this.each((c) => c.on_save?.(args, state, control, dir));
  }

  /** Writes the model, or the adapter, into a folder (default output_dir). */
  async save_model(dir: string = this.args.output_dir): Promise<void> {
    await this.step?.sync();
    await saveModel(this.model, dir);
  }

  /** Brings the model's own weights up to date with training, for a sample in the middle of a run. */
  async sync(): Promise<void> {
    await this.step?.sync();
  }

  /** Frees the optimizer's state. The model is the caller's. */
  dispose(): void {
    this.step?.dispose();
    this.step = null;
    this.announced = false;
  }
}
