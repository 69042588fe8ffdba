/** TrainingArguments: options of a training run, by their names in transformers. */
import { ArgumentError } from '../base/errors.js';
import { SCHEDULERS, type SchedulerType } from './schedules.js';

export type When = 'no' | 'steps' | 'epoch';

export interface TrainingArguments {
  /** Folder of snapshots (checkpoint-N), logs and the loss curve. */
  output_dir: string;
  /** Default 5e-5. */
  learning_rate: number;
  /** Default 'linear'. */
  lr_scheduler_type: SchedulerType;
  /** Steps over which the rate rises. Default 0. */
  warmup_steps: number;
  /** The same as a share of all steps, where warmup_steps is 0. Default 0. */
  warmup_ratio: number;
  /** Decoupled decay of matrices; A_log, D, dt_bias, norms and biases never decay. Default 0. */
  weight_decay: number;
  /** Defaults 0.9, 0.999, 1e-8. */
  adam_beta1: number;
  adam_beta2: number;
  adam_epsilon: number;
  /** Default 1; 0 for no clipping. */
  max_grad_norm: number;
  /** Default 8. */
  per_device_train_batch_size: number;
  per_device_eval_batch_size: number;
  /** Batches of one update; every token counts the same whatever batch it is in. Default 1. */
  gradient_accumulation_steps: number;
  /** Keep less between forward and backward pass, at the price of computing blocks twice. Default false. */
  gradient_checkpointing: boolean;
  /** Default 3. */
  num_train_epochs: number;
  /** Ends the run after so many updates, whatever the epochs; -1 (default) for none. */
  max_steps: number;
  /** Defaults 'no', 500 (steps). */
  eval_strategy: When;
  eval_steps: number;
  /** Defaults 'steps', 500. */
  save_strategy: When;
  save_steps: number;
  /** Snapshots kept; older ones are deleted once a newer one is whole. null (default) for all. */
  save_total_limit: number | null;
  /** Default 10. */
  logging_steps: number;
  /** Of shuffling and dropout. Default 42. */
  seed: number;
  /** Products in bfloat16, parameters and sums in float32. Default false. */
  bf16: boolean;
  /** Examples of like length together, padded to a few lengths. Default true. */
  group_by_length: boolean;
  /** Default false. */
  dataloader_drop_last: boolean;
  /** 'auto' (default): compiled on the tensorflow backend. */
  engine: 'auto' | 'compiled' | 'eager';
  /** Compile with XLA. Default true. */
  torch_compile: boolean;
  /** Where logs go beside log.jsonl. Default none. */
  report_to: readonly 'tensorboard'[];
  /** Show no progress bar. Default false; a bar is only drawn on a terminal. */
  disable_tqdm: boolean;
}

const DEFAULTS: Omit<TrainingArguments, 'output_dir'> = {
  learning_rate: 5e-5,
  lr_scheduler_type: 'linear',
  warmup_steps: 0,
  warmup_ratio: 0,
  weight_decay: 0,
  adam_beta1: 0.9,
  adam_beta2: 0.999,
  adam_epsilon: 1e-8,
  max_grad_norm: 1,
  per_device_train_batch_size: 8,
  per_device_eval_batch_size: 8,
  gradient_accumulation_steps: 1,
  gradient_checkpointing: false,
  num_train_epochs: 3,
  max_steps: -1,
  eval_strategy: 'no',
  eval_steps: 500,
  save_strategy: 'steps',
  save_steps: 500,
  save_total_limit: null,
  logging_steps: 10,
  seed: 42,
  bf16: false,
  group_by_length: true,
  dataloader_drop_last: false,
  engine: 'auto',
  torch_compile: true,
  report_to: [],
  disable_tqdm: false,
};

const COUNTS = [
  'per_device_train_batch_size',
  'per_device_eval_batch_size',
  'gradient_accumulation_steps',
  'eval_steps',
  'save_steps',
  'logging_steps',
] as const;
const CHOICES: Readonly<Record<string, readonly string[]>> = {
  eval_strategy: ['no', 'steps', 'epoch'],
  save_strategy: ['no', 'steps', 'epoch'],
  lr_scheduler_type: SCHEDULERS,
  engine: ['auto', 'compiled', 'eager'],
};

/** Fills in defaults. @throws ArgumentError naming an unknown option or a wrong value */
export function trainingArguments(given: { output_dir: string } & Partial<TrainingArguments>): TrainingArguments {
  const known = new Set(['output_dir', ...Object.keys(DEFAULTS)]);
  const unknown = Object.keys(given).find((key) => !known.has(key));
  if (unknown) throw new ArgumentError(`TrainingArguments: there is no option '${unknown}'`, { option: unknown });
  const defined = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) as typeof given;
  const args: TrainingArguments = { ...DEFAULTS, ...defined };
  const fail = (key: keyof TrainingArguments, want: string): never => {
    throw new ArgumentError(`TrainingArguments: ${key} is ${JSON.stringify(args[key])}, expected ${want}`, {
      [key]: args[key],
    });
  };
  if (typeof args.output_dir !== 'string' || args.output_dir === '') fail('output_dir', 'a folder');
  for (const key of COUNTS) if (!Number.isInteger(args[key]) || args[key] < 1) fail(key, 'a positive integer');
  for (const [key, values] of Object.entries(CHOICES)) {
    const name = key as keyof TrainingArguments;
    if (!values.includes(args[name] as string)) fail(name, `one of ${values.join(', ')}`);
  }
  if (!(args.learning_rate >= 0 && Number.isFinite(args.learning_rate))) fail('learning_rate', '0 or more');
  if (!(args.num_train_epochs > 0)) fail('num_train_epochs', 'a positive number');
  if (!(Number.isInteger(args.max_steps) && (args.max_steps > 0 || args.max_steps === -1)))
    fail('max_steps', 'a positive integer, or -1');
  if (!(Number.isInteger(args.warmup_steps) && args.warmup_steps >= 0)) fail('warmup_steps', 'an integer of 0 or more');
  if (!(args.warmup_ratio >= 0 && args.warmup_ratio <= 1)) fail('warmup_ratio', 'a number in [0, 1]');
  if (!(args.max_grad_norm >= 0)) fail('max_grad_norm', '0 or more');
  if (!(Number.isInteger(args.seed) && args.seed >= 0 && args.seed < 2 ** 31)) fail('seed', 'an integer in [0, 2^31)');
  if (args.save_total_limit !== null && !(Number.isInteger(args.save_total_limit) && args.save_total_limit > 0))
    fail('save_total_limit', 'a positive integer or null');
  return args;
}

/** Optimizer steps of a run, at least one. @param epochs may end within one @param stepsOf steps of an epoch, by its number */
export function plannedSteps(epochs: number, stepsOf: (epoch: number) => number): number {
  let total = 0;
  for (let epoch = 0; epoch < Math.floor(epochs); epoch++) total += stepsOf(epoch);
  return Math.max(1, Math.ceil(total + (epochs % 1) * stepsOf(Math.floor(epochs))));
}
