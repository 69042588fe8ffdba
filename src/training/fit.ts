/** compile, fit, evaluate and predict in the manner of tf.LayersModel, for a causal language model. */
import * as tf from '@tensorflow/tfjs';
import { askedAhead } from '../base/ahead.js';
import { ArgumentError, TrainingError } from '../base/errors.js';
import { inPieces, type Pieces } from '../base/pieces.js';
import { quote } from '../base/quote.js';
import { Turns } from '../base/turns.js';
import { AdamW, stepSettings } from './adamw_optimizer.js';
import { type Batch, checkBatch, prepareBatch, preparedBatches, type PreparedBatch } from './batch.js';
import { createStep } from './create_step.js';
import { batchesOf, type DatasetOfBatches, isDataset } from './data/dataset.js';
import { collate, type TokenizedExample, shuffled } from './data/index.js';
import { Dataset } from './datasets/index.js';
import { meanLoss } from './evaluate.js';
import { COMPILE_STEP_TABLE, COMPILE_TABLE, type CompileArgs, EVALUATE_TABLE, type EvaluateArgs, examplesIn, FIT_TABLE, type FitArgs, type FitCallback, type FitExamples, type FitMetric, optimizerOf, refuseTargets } from './fit_options.js'; // prettier-ignore
import { lossAndGradients } from './objective.js';
import { replicated } from './replicas/step.js';
import { batchTensors, countItems, type StepOptions, type TrainingStep } from './step.js';
import { causalOf, type TrainableModel, trainableOf } from './trainable.js';

/** What tfjs callbacks see of the model they serve. */
interface CallbackModel {
  stopTraining: boolean;
}

/** Batches, anew for every epoch. */
export type BatchSource = DatasetOfBatches | (() => AsyncIterable<Batch>) | AsyncIterable<Batch>;

function isBatchSource(data: unknown): data is BatchSource {
  if (typeof data === 'function') return true;
  if (typeof data !== 'object' || data === null || data instanceof Dataset || data instanceof tf.Tensor) return false;
  return isDataset(data) || typeof (data as Partial<AsyncIterable<Batch>>)[Symbol.asyncIterator] === 'function';
}

/** Examples in batches, in their order. */
function* collated(examples: readonly TokenizedExample[], size: number): Generator<Batch> {
  for (let i = 0; i < examples.length; i += size) yield collate(examples.slice(i, i + size), { pad_token_id: 0 });
}

/**
 * Trains with the vocabulary of tf.LayersModel: compile, fit, fitDataset, evaluate, predict. The stock losses of tfjs would
 * make one-hot targets [b, t, v]; this one never holds more than a chunk of the logits.
 *
 * @example
 * const trainer = new CausalLMTrainer(model);
 * trainer.compile({ optimizer: new AdamW({ learningRate: 1e-3 }), loss: 'causal_lm' });
 * const history = await trainer.fit([{ input_ids: [1, 2, 3, 4] }], { epochs: 2 });
 * history.history.loss; // one number per epoch
 */
export class CausalLMTrainer {
  private step: TrainingStep | null = null;
  private optimizer: tf.Optimizer | null = null;
  /** Whether the optimizer was made here, and goes with the step. */
  private ownOptimizer = false;
  private settings: CompileArgs = {};
  private stepOptions: StepOptions = {};
  /** Whether another optimizer changed the model's variables since the step took them over. */
  private changed = false;
  /** Of updates by other optimizers, which are done in pieces. */
  private readonly turns = new Turns();

  constructor(readonly model: TrainableModel) {}

  private get vocabulary(): number {
    return causalOf(this.model).config.vocab_size;
  }

  /** @throws ArgumentError for another loss, metric or optimizer, and for options that are none */
  compile(args: CompileArgs = {}): void {
    COMPILE_TABLE.check(args);
    COMPILE_STEP_TABLE.check(args.step);
    this.dispose();
    this.settings = args;
    const { gradientCheckpointing, dataParallel, workers, ...how } = args.step ?? {};
    this.stepOptions = { ...how, gradient_checkpointing: gradientCheckpointing };
    this.changed = false;
    const { optimizer, own } = optimizerOf(args.optimizer);
    this.optimizer = optimizer;
    this.ownOptimizer = own;
    const adamw = optimizer instanceof AdamW ? optimizer : null;
    const replicas = { data_parallel: dataParallel, workers };
    if (!adamw && replicated(replicas)) {
      this.dispose();
      throw new ArgumentError(
        `compile(): ${workers ? 'workers' : 'dataParallel'} needs AdamW, whose updates are part of the step: optimizer: new AdamW({ learningRate: 1e-3 }); others update on one device`,
        { option: workers ? 'workers' : 'dataParallel' },
      );
    }
    this.step = createStep(trainableOf(this.model), {
      ...this.stepOptions,
      ...(adamw && stepSettings(adamw)),
      ...(adamw && { replicas }),
    });
  }

  private compiled(): { step: TrainingStep; optimizer: tf.Optimizer } {
    if (!this.step || !this.optimizer) throw new ArgumentError('Call compile() before fit() or evaluate()', {});
    return { step: this.step, optimizer: this.optimizer };
  }

  /** One update. @returns mean loss */
  async trainOnBatch(batch: Batch): Promise<number> {
    checkBatch(batch); // before the model is asked for anything
    return this.train(prepareBatch(batch, this.vocabulary));
  }

  private async train(prepared: PreparedBatch): Promise<number> {
    const { step, optimizer } = this.compiled();
    const loss =
      optimizer instanceof AdamW
        ? (await step.step([prepared], optimizer.learningRate, step.steps)).loss
        : await this.turns.take(() => this.otherOptimizer(prepared, optimizer));
    if (!Number.isFinite(loss))
      throw new TrainingError(
        `The loss of update ${step.steps + 1} is ${loss}; lower the learning rate, or look at its batch`,
        { loss },
      );
    return loss;
  }

  /** Gradients eagerly, in pieces, then whatever the optimizer does with them, while nobody is in the middle of reading the weights. */
  private async otherOptimizer(batch: PreparedBatch, optimizer: tf.Optimizer): Promise<number> {
    const target = trainableOf(this.model);
    const variables = target.trainable();
    const items = countItems([batch]);
    const { stepOptions } = this;
    const work = function* (): Pieces<{ loss: number; means: tf.Tensor[] }> {
      const { loss, gradients } = yield* lossAndGradients(
        target,
        [...variables.keys()],
        [...variables.values()],
        target.frozen(),
        batchTensors(batch),
        stepOptions,
      );
      yield;
      return { loss: loss.dataSync()[0]!, means: gradients.map((gradient) => tf.div(gradient, items)) };
    };
    const { loss, means } = await inPieces(work(), { keeps: ({ means }) => means });
    try {
      const named = [...variables.values()].map((v, i) => [v.name, means[i]!] as const);
      await target.model.weights.turns.take(() => optimizer.applyGradients(Object.fromEntries(named)));
    } finally {
      tf.dispose(means);
    }
    this.changed = true;
    return loss / items;
  }

  /**
   * Trains on examples: a list of them, of rows of ids, or a tensor [b, t]; batches of a tf.data.Dataset or a stream go to
   * fitDataset().
   * @returns the History of tfjs: loss, and val_loss with validationData, per epoch
   * @throws ArgumentError for what is no data, and for options that are none
   */
  async fit(data: FitExamples | BatchSource, args: FitArgs = {}): Promise<tf.History> {
    refuseTargets(args);
    FIT_TABLE.check(args);
    if (isBatchSource(data)) return this.fitDataset(data, args);
    const { batchSize = 8, shuffle = true, seed = 42 } = args;
    const examples = examplesIn(data, 'fit()');
    if (examples.length === 0) throw new ArgumentError('fit: got no examples', {});
    const inOrder = (epoch: number): readonly TokenizedExample[] =>
      shuffle ? shuffled(examples.length, seed, epoch).map((k) => examples[k]!) : examples;
    return this.loop((epoch) => collated(inOrder(epoch), batchSize), args);
  }

  /**
   * Trains on batches: a tf.data.Dataset of them, or anything that gives them anew for every epoch.
   * @param dataset batches { input_ids, labels, attention_mask? } as arrays, or as tensors in a tf.data.Dataset
   * @throws ArgumentError when an epoch gets no batch
   */
  async fitDataset(dataset: BatchSource, args: FitArgs = {}): Promise<tf.History> {
    FIT_TABLE.check(args);
    if (!isBatchSource(dataset)) {
      throw new ArgumentError(
        `fitDataset() got ${quote(dataset)}; expected batches: a tf.data.Dataset, a stream, or a function that makes one. fit() takes examples.`,
        { got: dataset },
      );
    }
    const pass = (): AsyncIterable<Batch> => {
      if (typeof dataset === 'function') return dataset();
      return isDataset(dataset) ? batchesOf(dataset) : dataset;
    };
    return this.loop(pass, args);
  }

  private async loop(
    batches: (epoch: number) => AsyncIterable<Batch> | Iterable<Batch>,
    args: FitArgs,
  ): Promise<tf.History> {
    const history = new tf.History();
    const given = args.callbacks === undefined ? [] : Array.isArray(args.callbacks) ? args.callbacks : [args.callbacks];
    const callbacks: FitCallback[] = [
      history,
      ...(given as (FitCallback | tf.CustomCallbackArgs)[]).map((c) =>
        'setParams' in c ? c : new tf.CustomCallback(c),
      ),
    ];
    // tfjs callbacks stop a run through the model they serve, and take no other kind of model
    const served = Object.create(tf.LayersModel.prototype) as CallbackModel;
    served.stopTraining = false;
    for (const callback of callbacks) {
      callback.setParams({ epochs: args.epochs ?? 1, metrics: ['loss'] });
      (callback as unknown as { setModel(model: unknown): void }).setModel(served);
    }
    try {
      await this.epochs(batches, args, callbacks, () => served.stopTraining);
    } finally {
      await this.sync();
    }
    return history;
  }

  private async epochs(
    batches: (epoch: number) => AsyncIterable<Batch> | Iterable<Batch>,
    args: FitArgs,
    callbacks: readonly FitCallback[],
    stops: () => boolean,
  ): Promise<void> {
    for (const c of callbacks) await c.onTrainBegin();
    for (let epoch = 0; epoch < (args.epochs ?? 1) && !stops(); epoch++) {
      for (const c of callbacks) await c.onEpochBegin(epoch);
      let [sum, count, index] = [0, 0, 0];
      // the next batch is made while the step before it runs
      for await (const batch of askedAhead(preparedBatches(batches(epoch), this.vocabulary))) {
        const size = batch.batch;
        for (const c of callbacks) await c.onBatchBegin(index, { batch: index, size });
        const loss = await this.train(batch);
        sum += loss * size;
        count += size;
        for (const c of callbacks) await c.onBatchEnd(index, { batch: index, size, loss });
        index++;
        if (stops()) break;
      }
      if (count === 0) {
        throw new ArgumentError(
          `fit: epoch ${epoch + 1} got no batch; a stream that gives nothing a second time needs a function that makes it`,
          { epoch },
        );
      }
      const logs: Record<string, number> = { loss: sum / count };
      if (args.validationData)
        for (const [key, value] of Object.entries(
          await this.evaluate(args.validationData, { batchSize: args.batchSize }),
        ))
          logs[`val_${key}`] = value;
      for (const c of callbacks) await c.onEpochEnd(epoch, logs);
    }
    for (const c of callbacks) await c.onTrainEnd();
  }

  /**
   * Mean loss over all positions that count, and the metrics asked for in compile().
   * @throws ArgumentError when no position counts
   */
  async evaluate(
    data: FitExamples,
    args: EvaluateArgs = {},
  ): Promise<Record<'loss', number> & Partial<Record<FitMetric, number>>> {
    EVALUATE_TABLE.check(args);
    const examples = examplesIn(data, 'evaluate()');
    const { step } = this.compiled();
    const size = args.batchSize ?? 8;
    let hits = 0;
    const metrics = this.settings.metrics ?? [];
    if (this.changed) await step.refresh();
    this.changed = false;
    if (metrics.includes('accuracy')) await this.sync();
    const { loss, items } = await meanLoss(step, collated(examples, size), this.vocabulary, async (batch) => {
      if (metrics.includes('accuracy')) hits += await this.hits(batch);
    });
    if (items === 0) {
      throw new ArgumentError(
        `evaluate: none of the ${examples.length} examples has a position that counts: every label is left out, or there is one token`,
        { examples: examples.length },
      );
    }
    return {
      loss,
      ...(metrics.includes('perplexity') && { perplexity: Math.exp(loss) }),
      ...(metrics.includes('accuracy') && { accuracy: hits / items }),
    };
  }

  /** How often the likeliest token is the right one. */
  private async hits(batch: PreparedBatch): Promise<number> {
    const input_ids = tf.tensor2d(batch.ids, [batch.batch, batch.length], 'int32');
    try {
      const { logits } = await this.model.forwardAsync({ input_ids, use_cache: false });
      try {
        return await inPieces(hitsOf(logits, batch));
      } finally {
        logits.dispose();
      }
    } finally {
      input_ids.dispose();
    }
  }

  /** Logits [b, t, v] of ids; the caller's to dispose. The event loop stands still: predictAsync() leaves it free. */
  predict(ids: readonly (readonly number[])[] | Int32Array, shape?: [number, number]): tf.Tensor3D {
    this.step?.syncNow();
    const input_ids = shape ? tf.tensor2d(ids as Int32Array, shape, 'int32') : (ids as readonly (readonly number[])[]);
    const { logits } = this.model.forward({ input_ids, use_cache: false });
    if (input_ids instanceof tf.Tensor) input_ids.dispose();
    return logits;
  }

  /**
   * As predict(), with the event loop running between layers. No tidy knows of the logits.
   * @param ids rows of ids, or [b, t]
   * @throws ArgumentError for ids that are none; DisposedError where the model is disposed of meanwhile
   * @example
   * const trainer = new CausalLMTrainer(model);
   * const logits = await trainer.predictAsync([[1, 2, 3]]); // [1, 3, v]
   */
  async predictAsync(ids: readonly (readonly number[])[]): Promise<tf.Tensor3D> {
    await this.sync();
    return (await this.model.forwardAsync({ input_ids: ids, use_cache: false })).logits;
  }

  /** Brings the model's own weights up to date. */
  async sync(): Promise<void> {
    await this.step?.sync();
  }

  /** As dispose(), with the event loop free while the model's own weights are brought up to date. */
  async disposeAsync(): Promise<void> {
    await this.sync();
    this.dispose();
  }

  /** Frees the step, with the model's own weights up to date. Model and optimizer are the caller's. */
  dispose(): void {
    this.step?.syncNow();
    this.step?.dispose();
    this.step = null;
    if (this.ownOptimizer) this.optimizer?.dispose();
    this.ownOptimizer = false;
  }
}

/** Positions that are looked at together: a vocabulary's row for each. */
const TOGETHER = 32;

/** How many positions of a batch count and have the right token as the likeliest, some positions at a time. @param logits [b, t, v] */
function* hitsOf(logits: tf.Tensor3D, { batch, length, labels, weights }: PreparedBatch): Pieces<number> {
  const rows = tf.reshape(logits, [batch * length, -1]); // [b·t, v]
  let hits = 0;
  for (let from = 0; from < batch * length; from += TOGETHER) {
    if (from > 0) yield;
    const count = Math.min(TOGETHER, batch * length - from);
    const best = tf.tidy(() => tf.argMax(tf.slice(rows, [from, 0], [count, -1]), 1).dataSync());
    for (let i = 0; i < count; i++) if (best[i] === labels[from + i]) hits += weights[from + i]!;
  }
  return hits;
}
