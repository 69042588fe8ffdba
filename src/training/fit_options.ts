/** Options of compile() and fit() in the manner of Keras, and what may be trained on. */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError } from '../base/errors.js';
import * as kinds from '../base/option_kinds.js';
import { type OptionRules, OptionTable, type OtherNames } from '../base/options.js';
import { quote } from '../base/quote.js';
import { AdamW } from './adamw_optimizer.js';
import { checkLabels } from './data/learnable.js';
import type { TokenizedExample } from './data/index.js';
import { Dataset } from './datasets/index.js';
import { dataParallelKind, workersKind } from './replicas/option_kinds.js';
import type { StepOptions } from './step.js';

export type FitMetric = 'accuracy' | 'perplexity';

/** Optimizers by the names that tfjs has for them, with tfjs' defaults; 'adamw' is AdamW. */
const OPTIMIZERS = {
  adamw: () => new AdamW(),
  adam: () => tf.train.adam(0.001),
  sgd: () => tf.train.sgd(0.01),
  rmsprop: () => tf.train.rmsprop(0.001, 0.9),
  adagrad: () => tf.train.adagrad(0.01),
  adadelta: () => tf.train.adadelta(1, 0.95),
  adamax: () => tf.train.adamax(0.002),
} as const;

export type OptimizerName = keyof typeof OPTIMIZERS;

/** The one loss there is, by our name and by Keras'. */
export type FitLoss = 'causal_lm' | 'sparseCategoricalCrossentropy' | 'sparse_categorical_crossentropy';

export interface CompileArgs {
  /** AdamW (compiled with the step), or any tfjs optimizer or its name, which runs eagerly. Default: AdamW with its defaults. */
  optimizer?: tf.Optimizer | OptimizerName;
  /** The one loss there is, by either name: mean cross-entropy of the next token, from logits, -100 left out. */
  loss?: FitLoss;
  /** Default none. */
  metrics?: readonly FitMetric[];
  /** How the step runs; see StepOptions, and for replicas, which AdamW alone has, data_parallel and workers of the Trainer. */
  step?: Pick<StepOptions, 'engine' | 'xla' | 'bf16'> & {
    gradientCheckpointing?: boolean;
    /** Replicas share the rows of a batch: how many, or 'auto' for one on each GPU. Default null: one device. */
    dataParallel?: 'auto' | number | null;
    /** Addresses of workers (`mamba2 worker`), HOST:PORT: replicas run on their devices and not on this machine's. Default null. */
    workers?: readonly string[] | null;
  };
}

/** The hooks of tf.Callback, tf.CustomCallback and tf.History, whose common base tfjs does not export. */
export type FitCallback = Pick<
  tf.Callback,
  'setParams' | 'onTrainBegin' | 'onTrainEnd' | 'onEpochBegin' | 'onEpochEnd' | 'onBatchBegin' | 'onBatchEnd'
>;

/** What fit() and evaluate() take: examples, rows of ids, or a tensor of them. */
export type FitExamples = readonly (TokenizedExample | readonly number[] | Int32Array)[] | tf.Tensor2D | Dataset;

export interface FitArgs {
  /** Default 1. */
  epochs?: number;
  /** Default 8. */
  batchSize?: number;
  /** Default true. */
  shuffle?: boolean;
  /** Default 42. */
  seed?: number;
  validationData?: FitExamples;
  /** tfjs callbacks: tf.callbacks.earlyStopping, tf.CustomCallback, or an object of hooks. */
  callbacks?: FitCallback | tf.CustomCallbackArgs | readonly (FitCallback | tf.CustomCallbackArgs)[];
}

export interface EvaluateArgs {
  /** Default 8. */
  batchSize?: number;
}

const LOSSES: readonly FitLoss[] = ['causal_lm', 'sparseCategoricalCrossentropy', 'sparse_categorical_crossentropy'];
const optimizer = kinds.named(
  `an optimizer: new AdamW(), one of tf.train, or its name: ${Object.keys(OPTIMIZERS).join(', ')}`,
  (v) =>
    (typeof v === 'string' && Object.hasOwn(OPTIMIZERS, v)) || kinds.having('', 'applyGradients', 'getClassName').ok(v),
);

export const COMPILE_TABLE = new OptionTable<CompileArgs>(
  'compile()',
  {
    optimizer: { kind: optimizer },
    loss: {
      kind: kinds.named(
        "'causal_lm' or 'sparseCategoricalCrossentropy': the cross-entropy of the next token, from logits",
        (v) => LOSSES.includes(v as FitLoss),
      ),
      default: 'causal_lm',
    },
    metrics: { kind: kinds.listOf(kinds.oneOf('accuracy', 'perplexity'), "'accuracy' and 'perplexity'") },
    step: { kind: kinds.object },
  },
  {
    others: {
      learningRate: { why: 'it is an option of the optimizer: new AdamW({ learningRate: 1e-3 })' },
      learning_rate: { why: 'it is an option of the optimizer: new AdamW({ learningRate: 1e-3 })' },
      lossWeights: { why: 'there is one loss', off: [null] },
      loss_weights: { why: 'there is one loss', off: [null] },
      weightedMetrics: { why: 'every position counts the same', off: [null] },
      weighted_metrics: { why: 'every position counts the same', off: [null] },
      runEagerly: { why: "step: { engine: 'eager' } says it", off: [null, false] },
      run_eagerly: { why: "step: { engine: 'eager' } says it", off: [null, false] },
      jitCompile: { why: 'step: { xla: true or false } says it', off: [null, 'auto', true] },
      jit_compile: { why: 'step: { xla: true or false } says it', off: [null, 'auto', true] },
      stepsPerExecution: { why: 'a step is one program', off: [null, 1] },
      steps_per_execution: { why: 'a step is one program', off: [null, 1] },
    },
  },
);

export const COMPILE_STEP_TABLE = new OptionTable<NonNullable<CompileArgs['step']>>(
  'compile({ step })',
  {
    engine: { kind: kinds.oneOf('auto', 'compiled', 'eager'), default: 'auto' },
    xla: { kind: kinds.boolean, default: true },
    bf16: { kind: kinds.boolean, default: false },
    gradientCheckpointing: { kind: kinds.boolean, default: false },
    dataParallel: { kind: dataParallelKind, default: null },
    workers: { kind: workersKind, default: null },
  },
  {
    others: {
      gradient_checkpointing: 'gradientCheckpointing',
      data_parallel: 'dataParallel',
      torch_compile: 'xla',
      jitCompile: 'xla',
    },
  },
);

const EVALUATE_RULES: OptionRules<EvaluateArgs> = { batchSize: { kind: kinds.integer({ min: 1 }), default: 8 } };

/** What Keras and tfjs have besides. */
const FIT_OTHERS: OtherNames = {
  batch_size: 'batchSize',
  validation_data: 'validationData',
  verbose: { why: 'nothing is written; a callback may', off: [0, 1, 2, 'auto', null] },
  validationSplit: { why: 'split the examples: splitExamples()', off: [0, null] },
  validation_split: { why: 'split the examples: splitExamples()', off: [0, null] },
  classWeight: { why: 'every position counts the same; labels of -100 are left out', off: [null] },
  class_weight: { why: 'every position counts the same; labels of -100 are left out', off: [null] },
  sampleWeight: { why: 'every position counts the same; labels of -100 are left out', off: [null] },
  sample_weight: { why: 'every position counts the same; labels of -100 are left out', off: [null] },
  initialEpoch: { why: 'a Trainer goes on where a run stood', off: [0, null] },
  initial_epoch: { why: 'a Trainer goes on where a run stood', off: [0, null] },
  stepsPerEpoch: { why: 'an epoch is all of the data', off: [null] },
  steps_per_epoch: { why: 'an epoch is all of the data', off: [null] },
  batchesPerEpoch: { why: 'an epoch is all of the data', off: [null] },
  validationBatches: { why: 'all of the validation data is evaluated', off: [null] },
  validationBatchSize: { why: 'it is batchSize', off: [null] },
  yieldEvery: { why: 'the loop of events turns between steps', off: ['auto'] },
};

const data = kinds.named('examples { input_ids, labels? }, rows of ids, a tensor of them [b, t], or a Dataset', (v) =>
  kinds.either(kinds.listOf(kinds.anything), kinds.object).ok(v),
);

export const FIT_TABLE = new OptionTable<FitArgs>(
  'fit()',
  {
    ...EVALUATE_RULES,
    epochs: { kind: kinds.integer({ min: 1 }), default: 1 },
    shuffle: { kind: kinds.boolean, default: true },
    seed: { kind: kinds.integer({ min: 0, max: 2 ** 31 - 1 }), default: 42 },
    validationData: { kind: data },
    callbacks: { kind: kinds.either(kinds.object, kinds.listOf(kinds.object, 'callbacks of tfjs')) },
  },
  { others: FIT_OTHERS },
);

export const EVALUATE_TABLE = new OptionTable<EvaluateArgs>('evaluate()', EVALUATE_RULES, {
  others: { ...FIT_OTHERS, steps: { why: 'all of the data is evaluated', off: [null] } },
});

/** The optimizer that is meant, and whether it was made here. */
export function optimizerOf(given: tf.Optimizer | OptimizerName | undefined): {
  optimizer: tf.Optimizer;
  own: boolean;
} {
  if (given !== undefined && typeof given !== 'string') return { optimizer: given, own: false };
  return { optimizer: OPTIMIZERS[given ?? 'adamw'](), own: true };
}

function row(value: unknown, index: number, where: string): TokenizedExample {
  const ids = value instanceof Int32Array ? Array.from(value) : value;
  if (!Array.isArray(ids)) {
    checkLabels(value as TokenizedExample, index);
    return value as TokenizedExample;
  }
  const odd = ids.findIndex((id) => !Number.isInteger(id));
  if (odd < 0) return { input_ids: ids as number[] };
  throw new ArgumentError(
    `${where}: row ${index} holds ${quote(ids[odd])} at ${odd}; expected ids, which are integers.`,
    {
      row: index,
      got: ids[odd] as unknown,
    },
  );
}

/** Examples of whatever holds ids. @throws ArgumentError saying what may be passed */
export function examplesIn(given: unknown, where: string): readonly TokenizedExample[] {
  if (given instanceof tf.Tensor && given.rank === 2)
    return (given as tf.Tensor2D).arraySync().map((ids, i) => row(ids, i, where));
  const list = given instanceof Dataset ? given.to_list() : given;
  if (Array.isArray(list)) return list.map((each, i) => row(each, i, where));
  throw new ArgumentError(`${where} got ${quote(given)}; expected ${data.expected}.`, { got: given });
}

/** The second argument of fit(): options, where Keras has the targets. */
export function refuseTargets(args: unknown): void {
  if (!Array.isArray(args) && !(args instanceof tf.Tensor)) return;
  throw new ArgumentError(
    'fit() got targets as its second argument; a causal model learns the next token of its own input. Pass labels, if any, with the examples: fit([{ input_ids, labels }], { epochs }).',
    {},
  );
}
