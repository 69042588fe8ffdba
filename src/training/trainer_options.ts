/** What a Trainer is made from, and what a run gives. */
import { ArgumentError } from '../base/errors.js';
import * as kinds from '../base/option_kinds.js';
import { type OptionRules, OptionTable, type OtherNames } from '../base/options.js';
import type { Tokenizer } from '../tokenizers/index.js';
import type { TrainingOptions } from './arguments.js';
import type { TrainerCallback } from './callbacks.js';
import { type ExampleSource, sourceKind } from './data/index.js';
import type { Dataset, IterableDataset } from './datasets/index.js';
import type { TrainableModel } from './trainable.js';

export interface TrainerOptions {
  /** A model, all of it trained; or a model with adapters, they alone trained. */
  model: TrainableModel;
  /** TrainingArguments, or their fields. */
  args: TrainingOptions;
  /** Examples as ids: a list, a data set, or a stream (then max_steps is needed). */
  train_dataset?: ExampleSource | Dataset | IterableDataset;
  eval_dataset?: ExampleSource | Dataset | IterableDataset;
  /** The tokenizer, whose pad token fills rows up. */
  processing_class?: Tokenizer;
  /** processing_class by its older name in transformers. */
  tokenizer?: Tokenizer;
  callbacks?: readonly TrainerCallback[];
  /** Whole documents packed into rows of max_length. Default false. */
  packing?: boolean;
  /** Default: the longest example's; needed for streams and packing. */
  max_length?: number;
  /** Default: the tokenizer's pad token, else the model's, else 0. It never counts. */
  pad_token_id?: number;
  padding_side?: 'left' | 'right';
  on_warning?: (message: string) => void;
}

export interface TrainOutput {
  global_step: number;
  /** Mean of the losses of this call's steps. */
  training_loss: number;
  /** Seconds, and tokens per second (padding not counted). */
  train_runtime: number;
  train_tokens_per_second: number;
  /** Why the run ended early: a signal, a callback, or a stream that gave no more examples. */
  stopped_by: 'SIGINT' | 'SIGTERM' | 'SIGHUP' | 'callback' | 'data' | null;
}

/** Options of Trainer.train(). */
export interface TrainOptions {
  /** A snapshot's folder, or true for the last one in output_dir (none: from the start). */
  resume_from_checkpoint?: string | boolean | null;
}

const tokenizer = kinds.having('a tokenizer: AutoTokenizer.from_pretrained()', 'encode', 'decode');
const HOOKS = ['on_train_begin', 'on_step_end', 'on_log', 'on_evaluate', 'on_save', 'on_train_end'] as const;

/** A callback has at least one hook that is called here. */
const callback = kinds.named(`an object with one of ${HOOKS.join(', ')}`, (v) =>
  HOOKS.some((hook) => typeof (v as Partial<Record<string, unknown>> | null)?.[hook] === 'function'),
);

/** Options that trainers share. */
export const SHARED_RULES = {
  model: { kind: kinds.having('a model (from_pretrained()), or one with an adapter (get_peft_model())', 'forward', 'generate') }, // prettier-ignore
  // what it holds has a table of its own
  args: { kind: kinds.named("TrainingArguments, or an object of their fields: { output_dir: 'out' }", kinds.object) },
  train_dataset: { kind: sourceKind },
  eval_dataset: { kind: sourceKind },
  processing_class: { kind: tokenizer },
  tokenizer: { kind: tokenizer },
  callbacks: { kind: kinds.listOf(callback, `callbacks, which have one of ${HOOKS.join(', ')}`) },
  on_warning: { kind: kinds.func },
} as const;

const IN_ARGS = 'put it into args';

/** Names of transformers that no trainer takes. */
export const SHARED_OTHERS: OtherNames = {
  data_collator: { why: 'rows are padded or packed by the trainer', off: [null] },
  model_init: { why: 'pass the model', off: [null] },
  compute_loss_func: { why: 'the loss is the mean cross-entropy of the labels', off: [null] },
  compute_metrics: {
    why: 'evaluation gives loss and perplexity; a callback (on_evaluate) may compute more',
    off: [null],
  },
  preprocess_logits_for_metrics: { why: 'logits never exist whole', off: [null] },
  optimizers: {
    why: 'AdamW is the optimizer; args has learning_rate, lr_scheduler_type, weight_decay and more',
    off: [null],
  },
  optimizer_cls_and_kwargs: { why: 'AdamW is the optimizer; CausalLMTrainer takes those of tf.train', off: [null] },
  quantization_config: { why: 'pass it to from_pretrained(), and train an adapter on the model', off: [null] },
  training_args: 'args',
  dataset: 'train_dataset',
  eval_data: 'eval_dataset',
  output_dir: { why: IN_ARGS },
  learning_rate: { why: IN_ARGS },
  num_train_epochs: { why: IN_ARGS },
  max_steps: { why: IN_ARGS },
  per_device_train_batch_size: { why: IN_ARGS },
};

/** The tokenizer is one option by two names. */
export const TOKENIZER_CLASH = {
  option: 'tokenizer',
  when: (o: { tokenizer?: unknown; processing_class?: unknown }): boolean =>
    o.processing_class !== undefined && o.processing_class !== o.tokenizer,
  why: 'and processing_class is another: they are one option by two names, so pass either',
} as const;

const RULES: OptionRules<TrainerOptions> = {
  ...SHARED_RULES,
  packing: { kind: kinds.boolean, default: false },
  max_length: { kind: kinds.integer({ min: 1 }) },
  pad_token_id: { kind: kinds.integer({ min: 0 }) },
  padding_side: { kind: kinds.oneOf('left', 'right'), default: 'right' },
};

/** Options of new Trainer(). */
export const TRAINER_TABLE = new OptionTable<TrainerOptions>('new Trainer()', RULES, {
  others: {
    ...SHARED_OTHERS,
    max_seq_length: 'max_length',
    peft_config: { why: 'it is an option of SFTTrainer; or pass get_peft_model(model, config) as model', off: [null] },
    dataset_text_field: { why: 'a Trainer takes ids; SFTTrainer takes texts' },
    formatting_func: { why: 'a Trainer takes ids; SFTTrainer takes texts', off: [null] },
  },
  clashes: [TOKENIZER_CLASH],
});

/** Options of Trainer.train(). */
export const TRAIN_TABLE = new OptionTable<TrainOptions>(
  'train()',
  {
    resume_from_checkpoint: {
      kind: kinds.orNull(kinds.named("a snapshot's folder, or true for the last one", kinds.either(kinds.text, kinds.boolean))), // prettier-ignore
      default: false,
    },
  },
  {
    others: {
      trial: { why: 'there is no search for hyperparameters', off: [null] },
      ignore_keys_for_eval: { why: 'evaluation gives loss and perplexity alone', off: [null] },
      model_path: 'resume_from_checkpoint',
      resume: 'resume_from_checkpoint',
    },
  },
);

/** @throws ArgumentError for an option that must be given and is not */
export function requireOptions<O extends object>(
  table: OptionTable<O>,
  options: O,
  names: readonly (keyof O & string)[],
): void {
  for (const name of names) {
    if (options[name] !== undefined) continue;
    const { kind } = table.rules[name];
    throw new ArgumentError(`${table.where} needs ${name}: ${kind.expected}.`, {
      option: name,
      expected: kind.expected,
    });
  }
}
