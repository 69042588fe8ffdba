/** Which options a training run takes, and what is said of those that it does not take. */
import * as kinds from '../base/option_kinds.js';
import { type Clash, type OptionRules, OptionTable, type OtherNames } from '../base/options.js';
import { dataParallelKind, workersKind } from './replicas/option_kinds.js';
import { SCHEDULERS, type SchedulerType } from './schedules.js';

export type When = 'no' | 'steps' | 'epoch';

/** The fields of TrainingArguments. */
export interface ArgumentFields {
  /** Folder of snapshots (checkpoint-N), logs and the loss curve. */
  output_dir: string;
  /** Default 5e-5. */
  learning_rate: number;
  /** Default 'linear'. */
  lr_scheduler_type: SchedulerType;
  /** Steps over which the rate rises; below 1 a share of all steps. Default 0. */
  warmup_steps: number;
  /** The same as a share of all steps, where warmup_steps is 0. Default 0. */
  warmup_ratio: number;
  /** The one optimizer there is: AdamW in float32, by either name. Default 'adamw_torch'. */
  optim: 'adamw_torch' | 'adamw_torch_fused';
  /** Decoupled decay of matrices; A_log, D, dt_bias, norms and biases never decay. Default 0. */
  weight_decay: number;
  /** Default 0.9. */
  adam_beta1: number;
  /** Default 0.999. */
  adam_beta2: number;
  /** Default 1e-8. */
  adam_epsilon: number;
  /** Default 1; 0 for no clipping. */
  max_grad_norm: number;
  /** Default 8. */
  per_device_train_batch_size: number;
  /** Default 8. */
  per_device_eval_batch_size: number;
  /** Batches of one update; every token counts the same whatever batch it is in. Default 1. */
  gradient_accumulation_steps: number;
  /** Keep less between forward and backward pass, at the price of computing blocks twice. Default false. */
  gradient_checkpointing: boolean;
  /** PyTorch has two ways of it, which give the same; here there is one. Default null. */
  gradient_checkpointing_kwargs: { use_reentrant?: boolean } | null;
  /** Default 3. */
  num_train_epochs: number;
  /** Ends the run after so many updates, whatever the epochs; -1 (default) for none. */
  max_steps: number;
  /** Default 'no'. */
  eval_strategy: When;
  /** With 'steps'; below 1 a share of all steps, null for logging_steps. Default 500. */
  eval_steps: number | null;
  /** Epochs, or steps with 'steps', before the first evaluation. Default 0. */
  eval_delay: number;
  /** Evaluate before the first step. Default false. */
  eval_on_start: boolean;
  /** Default 'steps'. */
  save_strategy: When;
  /** With 'steps'; below 1 a share of all steps. Default 500. */
  save_steps: number;
  /** Snapshots kept; older ones are deleted once a newer one is whole. null (default) for all. */
  save_total_limit: number | null;
  /** Default 'steps'. */
  logging_strategy: When;
  /** With 'steps'; below 1 a share of all steps. Default 10. */
  logging_steps: number;
  /** Log the first step as well. Default false. */
  logging_first_step: boolean;
  /** Folder of log.jsonl, loss.svg and event files of TensorBoard. Default: output_dir, and runs/ in it for event files. */
  logging_dir: string | null;
  /** Where logs go beside log.jsonl: 'tensorboard' (or 'all'), or 'none' (default). */
  report_to: 'none' | 'all' | 'tensorboard' | readonly 'tensorboard'[];
  /** Of shuffling and dropout. Default 42. */
  seed: number;
  /** Of shuffling alone. Default: seed. */
  data_seed: number | null;
  /** Products in bfloat16, parameters and sums in float32. Default false. */
  bf16: boolean;
  /** Never true: the range of float16 is too small for the scan. Default false. */
  fp16: false;
  /** Examples of like length together, padded to a few lengths. Default true. */
  group_by_length: boolean;
  /** Default false. */
  dataloader_drop_last: boolean;
  /** Columns that are not trained on are left alone, whatever this says. Default true. */
  remove_unused_columns: boolean;
  /** 'auto' (default): compiled on the tensorflow backend. */
  engine: 'auto' | 'compiled' | 'eager';
  /** Compile with XLA. Default true. */
  torch_compile: boolean;
  /**
   * Replicas of the step on the devices of this machine: so many, or 'auto' for a replica on each GPU. A batch of per_device_train_batch_size rows is
   * shared out, so that a run is the same with any number of them. Default null: one.
   */
  data_parallel: 'auto' | number | null;
  /** Addresses of workers (`mamba2 worker`), HOST:PORT: replicas run on their devices and not on this machine's. Default null. */
  workers: readonly string[] | null;
  /** Show no progress bar. Default false; a bar is only drawn on a terminal. */
  disable_tqdm: boolean | null;
}

const count = kinds.integer({ min: 1 });
const when = kinds.oneOf('no', 'steps', 'epoch');
const seed = kinds.integer({ min: 0, max: 2 ** 31 - 1 });
const FLOAT16 = 'false: the range of float16 is too small for the scan; bf16 halves what products take';

/** An interval: so many updates, or a share of all. */
const interval = kinds.named('an integer of 1 or more, or a share of all steps between 0 and 1', (v) =>
  [kinds.integer({ min: 1 }), kinds.number({ above: 0, below: 1 })].some((kind) => kind.ok(v)),
);
const reports = kinds.oneOf('tensorboard');

export const ARGUMENT_RULES: OptionRules<Partial<ArgumentFields>> = {
  output_dir: { kind: kinds.named('a folder', kinds.text) },
  learning_rate: { kind: kinds.number({ min: 0 }), default: 5e-5 },
  lr_scheduler_type: { kind: kinds.oneOf(...SCHEDULERS), default: 'linear' },
  warmup_steps: {
    kind: kinds.named('an integer of 0 or more, or a share of all steps below 1', (v) =>
      [kinds.integer({ min: 0 }), kinds.number({ min: 0, below: 1 })].some((kind) => kind.ok(v)),
    ),
    default: 0,
  },
  warmup_ratio: { kind: kinds.number({ min: 0, max: 1 }), default: 0 },
  optim: {
    kind: kinds.named("'adamw_torch' or 'adamw_torch_fused': AdamW is the one optimizer of a Trainer", (v) =>
      kinds.oneOf('adamw_torch', 'adamw_torch_fused').ok(v),
    ),
    default: 'adamw_torch',
  },
  weight_decay: { kind: kinds.number({ min: 0 }), default: 0 },
  adam_beta1: { kind: kinds.number({ min: 0, below: 1 }), default: 0.9 },
  adam_beta2: { kind: kinds.number({ min: 0, below: 1 }), default: 0.999 },
  adam_epsilon: { kind: kinds.number({ min: 0 }), default: 1e-8 },
  max_grad_norm: { kind: kinds.number({ min: 0 }), default: 1 },
  per_device_train_batch_size: { kind: count, default: 8 },
  per_device_eval_batch_size: { kind: count, default: 8 },
  gradient_accumulation_steps: { kind: count, default: 1 },
  gradient_checkpointing: { kind: kinds.boolean, default: false },
  gradient_checkpointing_kwargs: {
    kind: kinds.orNull(
      kinds.named('{ use_reentrant: true or false }', (v) => {
        const entries = kinds.isPlain(v) ? Object.entries(v) : null;
        return (
          entries !== null && entries.every(([name, value]) => name === 'use_reentrant' && kinds.boolean.ok(value))
        );
      }),
    ),
    default: null,
  },
  num_train_epochs: { kind: kinds.number({ above: 0 }), default: 3 },
  max_steps: {
    kind: kinds.named('an integer of 1 or more, or -1', (v) => v === -1 || count.ok(v)),
    default: -1,
  },
  eval_strategy: { kind: when, default: 'no' },
  eval_steps: { kind: kinds.orNull(interval), default: 500 },
  eval_delay: { kind: kinds.number({ min: 0 }), default: 0 },
  eval_on_start: { kind: kinds.boolean, default: false },
  save_strategy: { kind: when, default: 'steps' },
  save_steps: { kind: interval, default: 500 },
  save_total_limit: { kind: kinds.orNull(count), default: null },
  logging_strategy: { kind: when, default: 'steps' },
  logging_steps: { kind: interval, default: 10 },
  logging_first_step: { kind: kinds.boolean, default: false },
  logging_dir: { kind: kinds.orNull(kinds.named('a folder', kinds.text)), default: null },
  report_to: {
    kind: kinds.named("'none', 'tensorboard', 'all' or a list of them; callbacks may send logs elsewhere", (v) =>
      Array.isArray(v) ? v.every((each) => reports.ok(each)) : kinds.oneOf('none', 'all', 'tensorboard').ok(v),
    ),
    default: 'none',
  },
  seed: { kind: seed, default: 42 },
  data_seed: { kind: kinds.orNull(seed), default: null },
  bf16: { kind: kinds.boolean, default: false },
  fp16: { kind: kinds.named(FLOAT16, kinds.oneOf(false)), default: false },
  group_by_length: { kind: kinds.boolean, default: true },
  dataloader_drop_last: { kind: kinds.boolean, default: false },
  remove_unused_columns: { kind: kinds.boolean, default: true },
  engine: { kind: kinds.oneOf('auto', 'compiled', 'eager'), default: 'auto' },
  torch_compile: { kind: kinds.boolean, default: true },
  data_parallel: { kind: dataParallelKind, default: null },
  workers: { kind: workersKind, default: null },
  disable_tqdm: { kind: kinds.orNull(kinds.boolean), default: false },
};

const ONE_DEVICE =
  'a model lies whole on one device, or on each of several (data_parallel, workers), which this process drives';
const NO_HUB = 'save the model with save_model() and upload the folder';
const BEST = 'the best evaluation is in state.best_metric and state.best_step; load checkpoint-N of that step';
const FILES = 'logs are files; a callback (on_log) may send them elsewhere';
const EXAMPLES = 'examples are read in this process, as they are needed';
const XLA = 'programs are compiled by XLA';
const AS_EVALUATION = 'evaluation gives the loss and its perplexity; a callback (on_evaluate) may compute more';
const SFT = 'it is an option of SFTTrainer and its SFTConfig';

const NONE = [null, undefined, false, ''] as const;

/** Names of transformers, of this version and of earlier ones, that are no options here. */
export const ARGUMENT_OTHERS: OtherNames = {
  // by other names here
  evaluation_strategy: 'eval_strategy',
  per_gpu_train_batch_size: 'per_device_train_batch_size',
  per_gpu_eval_batch_size: 'per_device_eval_batch_size',
  lr: 'learning_rate',
  epochs: 'num_train_epochs',
  num_epochs: 'num_train_epochs',
  batch_size: 'per_device_train_batch_size',
  scheduler: 'lr_scheduler_type',
  optimizer: 'optim',
  gradient_clipping: 'max_grad_norm',
  dtype: { why: "parameters are trained in float32; bf16: true makes products in bfloat16 (float16's range is too small)", off: ['float32'] }, // prettier-ignore
  torch_dtype: { why: "parameters are trained in float32; bf16: true makes products in bfloat16 (float16's range is too small)", off: ['float32'] }, // prettier-ignore
  train_sampling_strategy: {
    why: 'examples are shuffled; group_by_length says whether those of like length come together',
    off: ['random', 'group_by_length'],
  },
  length_column_name: { why: 'lengths are counted', off: ['length'] },
  // numbers that differ
  lr_scheduler_kwargs: { why: 'the schedules have no options but warmup', off: NONE },
  label_smoothing_factor: { why: 'the loss is the cross-entropy of the labels as they are', off: [0] },
  neftune_noise_alpha: { why: 'no noise is added to embeddings', off: NONE },
  optim_args: { why: 'AdamW has adam_beta1, adam_beta2, adam_epsilon and weight_decay', off: NONE },
  optim_target_modules: {
    why: 'there is one optimizer for all; target_modules of LoraConfig chooses modules',
    off: NONE,
  },
  adafactor: { why: 'AdamW is the one optimizer of a Trainer', off: [false] },
  fp16_full_eval: { why: FLOAT16.slice('false: '.length), off: [false] },
  fp16_opt_level: { why: FLOAT16.slice('false: '.length), off: ['O1'] },
  fp16_backend: { why: FLOAT16.slice('false: '.length), off: ['auto'] },
  half_precision_backend: { why: 'bf16: true is all there is', off: ['auto'] },
  bf16_full_eval: { why: 'bf16: true is for evaluation too', off: [false] },
  tf32: { why: 'products are those of bf16, true or false', off: NONE },
  // what evaluation and snapshots do not do
  load_best_model_at_end: { why: BEST, off: [false] },
  metric_for_best_model: { why: BEST, off: [...NONE, 'loss', 'eval_loss'] },
  greater_is_better: { why: BEST, off: NONE },
  save_only_model: { why: 'a snapshot is what a run goes on from; save_model() writes the model alone', off: [false] },
  save_safetensors: { why: 'weights are always written as safetensors', off: [true] },
  save_on_each_node: { why: ONE_DEVICE, off: [false, true] },
  enable_jit_checkpoint: { why: 'SIGTERM always ends a run with a snapshot', off: [false, true] },
  overwrite_output_dir: { why: 'snapshots of the same step are always replaced', off: [true, false] },
  resume_from_checkpoint: { why: 'pass it to train()', off: NONE },
  restore_callback_states_from_checkpoint: { why: 'callbacks see the log of the run they go on with', off: [false] },
  ignore_data_skip: { why: 'a run goes on where it stood in its data', off: [false] },
  prediction_loss_only: { why: AS_EVALUATION, off: [false, true] },
  include_for_metrics: { why: AS_EVALUATION, off: NONE },
  include_inputs_for_metrics: { why: AS_EVALUATION, off: [false] },
  batch_eval_metrics: { why: AS_EVALUATION, off: [false] },
  eval_do_concat_batches: { why: AS_EVALUATION, off: [true] },
  eval_use_gather_object: { why: ONE_DEVICE, off: [false] },
  eval_accumulation_steps: { why: 'no logits are kept in evaluation', off: NONE },
  do_train: { why: 'call train()', off: [true, false] },
  do_eval: { why: 'set eval_strategy, or call evaluate()', off: [false] },
  do_predict: { why: 'there is no predict(); use forward() or generate() of the model', off: [false] },
  label_names: { why: "labels are called 'labels'", off: NONE },
  use_cache: { why: 'training keeps no cache', off: [false] },
  auto_find_batch_size: { why: 'set per_device_train_batch_size to what fits', off: [false] },
  full_determinism: { why: 'a run is repeatable on a CPU; kernels of a GPU may sum in another order', off: [false] },
  // logs
  log_level: { why: 'warnings go to on_warning', off: ['passive'] },
  log_level_replica: { why: ONE_DEVICE, off: ['warning', 'passive'] },
  log_on_each_node: { why: ONE_DEVICE, off: [true, false] },
  logging_nan_inf_filter: { why: 'a loss that is not finite ends the run with an error', off: [false, true] },
  include_num_input_tokens_seen: { why: 'tokens but padding are always counted in the state', off: [true, false, 'no', 'non_padding'] }, // prettier-ignore
  include_tokens_per_second: { why: 'it is always in the log', off: [true, false] },
  skip_memory_metrics: { why: 'memory is not logged', off: [true] },
  run_name: { why: FILES, off: NONE },
  project: { why: FILES, off: ['huggingface'] },
  trackio_space_id: { why: FILES, off: NONE },
  trackio_bucket_id: { why: FILES, off: NONE },
  trackio_static_space_id: { why: FILES, off: NONE },
  debug: { why: 'a loss that is not finite ends the run with an error that names the batch', off: [...NONE] },
  // the hub
  push_to_hub: { why: NO_HUB, off: [false] },
  push_to_hub_model_id: { why: NO_HUB, off: NONE },
  push_to_hub_organization: { why: NO_HUB, off: NONE },
  push_to_hub_token: { why: NO_HUB, off: NONE },
  hub_token: { why: NO_HUB, off: NONE },
  hub_private_repo: { why: NO_HUB, off: NONE },
  hub_model_id: { why: NO_HUB, off: NONE },
  hub_strategy: { why: NO_HUB, off: ['every_save'] },
  hub_always_push: { why: NO_HUB, off: [false] },
  hub_revision: { why: NO_HUB, off: NONE },
  // devices and processes
  use_cpu: {
    why: "choose the device where the model is loaded: from_pretrained(name, { device: 'cpu' })",
    off: [false],
  },
  no_cuda: {
    why: "choose the device where the model is loaded: from_pretrained(name, { device: 'cpu' })",
    off: [false],
  },
  use_mps_device: { why: 'choose the device where the model is loaded', off: [false] },
  use_ipex: { why: XLA, off: [false] },
  jit_mode_eval: { why: XLA, off: [false] },
  torch_compile_backend: { why: XLA, off: NONE },
  torch_compile_mode: { why: XLA, off: NONE },
  torchdynamo: { why: XLA, off: NONE },
  torch_empty_cache_steps: { why: 'memory of a device is given back when the trainer is disposed', off: NONE },
  use_liger_kernel: { why: 'which kernels run is chosen by the device', off: [false] },
  liger_kernel_config: { why: 'which kernels run is chosen by the device', off: NONE },
  average_tokens_across_devices: { why: ONE_DEVICE, off: [true, false] },
  local_rank: { why: ONE_DEVICE, off: [-1] },
  accelerator_config: { why: ONE_DEVICE, off: NONE },
  parallelism_config: { why: ONE_DEVICE, off: NONE },
  ddp_find_unused_parameters: { why: ONE_DEVICE, off: NONE },
  ddp_bucket_cap_mb: { why: ONE_DEVICE, off: NONE },
  ddp_broadcast_buffers: { why: ONE_DEVICE, off: NONE },
  ddp_static_graph: { why: ONE_DEVICE, off: NONE },
  ddp_backend: { why: ONE_DEVICE, off: NONE },
  ddp_timeout: { why: ONE_DEVICE, off: [1800] },
  tpu_num_cores: { why: ONE_DEVICE, off: NONE },
  tpu_metrics_debug: { why: ONE_DEVICE, off: [false] },
  fsdp: { why: ONE_DEVICE, off: NONE },
  fsdp_config: { why: ONE_DEVICE, off: NONE },
  fsdp_min_num_params: { why: ONE_DEVICE, off: [0] },
  fsdp_transformer_layer_cls_to_wrap: { why: ONE_DEVICE, off: NONE },
  deepspeed: { why: ONE_DEVICE, off: NONE },
  mp_parameters: { why: ONE_DEVICE, off: NONE },
  dispatch_batches: { why: ONE_DEVICE, off: NONE },
  split_batches: { why: ONE_DEVICE, off: NONE },
  ray_scope: { why: ONE_DEVICE, off: ['last'] },
  dataloader_num_workers: { why: EXAMPLES, off: [0] },
  dataloader_pin_memory: { why: EXAMPLES, off: [true, false] },
  dataloader_persistent_workers: { why: EXAMPLES, off: [false] },
  dataloader_prefetch_factor: { why: EXAMPLES, off: NONE },
  dataloader_multiprocessing_context: { why: EXAMPLES, off: NONE },
  dataloader_in_order: { why: EXAMPLES, off: [true] },
  past_index: { why: 'training keeps no cache', off: [-1] },
};

/** What of SFTTrainer's a Trainer of ids says. */
const OF_SFT: OtherNames = {
  dataset_text_field: { why: SFT },
  completion_only_loss: { why: SFT },
  append_eos: { why: SFT },
  max_length: { why: 'it stands beside args in a Trainer, and in args of an SFTTrainer' },
  packing: { why: 'it stands beside args in a Trainer, and in args of an SFTTrainer' },
};

/** @param value the default, which is no choice: arguments that were filled in hold it */
const unless = <K extends keyof ArgumentFields>(
  option: K,
  value: ArgumentFields[K],
  without: (options: Readonly<Partial<ArgumentFields>>) => boolean,
  why: string,
): Clash<Partial<ArgumentFields>> => ({
  option,
  when: (options) => options[option] !== value && options[option] !== null && without(options),
  why: `which has no effect ${why}`,
});

export const ARGUMENT_CLASHES: readonly Clash<Partial<ArgumentFields>>[] = [
  unless('eval_steps', 500, (o) => (o.eval_strategy ?? 'no') !== 'steps', "without eval_strategy: 'steps'"),
  unless('eval_delay', 0, (o) => (o.eval_strategy ?? 'no') === 'no', 'without an eval_strategy'),
  // save_strategy: 'no' turns saving off with all that belongs to it
  unless('save_steps', 500, (o) => o.save_strategy === 'epoch', "without save_strategy: 'steps'"),
  unless('logging_steps', 10, (o) => (o.logging_strategy ?? 'steps') !== 'steps', "without logging_strategy: 'steps'"),
  unless('logging_first_step', false, (o) => o.logging_strategy === 'no', "with logging_strategy: 'no'"),
  unless('warmup_ratio', 0, (o) => (o.warmup_steps ?? 0) > 0, 'beside warmup_steps: pass either'),
  ...(['warmup_steps', 'warmup_ratio'] as const).map((option) =>
    unless(option, 0, (o) => o.lr_scheduler_type === 'constant', "with 'constant'; use 'constant_with_warmup'"),
  ),
];

/** Options of TrainingArguments, and of `args` of a Trainer. */
export const TRAINING_TABLE = new OptionTable<Partial<ArgumentFields>>('TrainingArguments', ARGUMENT_RULES, {
  others: { ...ARGUMENT_OTHERS, ...OF_SFT },
  clashes: ARGUMENT_CLASHES,
});
