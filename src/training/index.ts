/**
 * Training: data and collators, the training step (eager or compiled, the same code), AdamW, schedules, the Trainer and
 * SFTTrainer, callbacks and logs, and Keras-style compile and fit.
 */
export type { AdamWSettings } from './adamw.js';
export { AdamW, type AdamWArgs } from './adamw_optimizer.js';
export { type Batch, prepareBatch, type PreparedBatch } from './batch.js';
export { lossSum, type ObjectiveOptions } from './objective.js';
export { type Trainable, type TrainableModel, trainableOf } from './trainable.js';
export type { Moments, StepOptions, StepResult, TrainingStep } from './step.js';
export { createStep } from './create_step.js';
export * from './data/index.js';
export { TrainingArguments, trainingArguments, type TrainingOptions } from './arguments.js';
export type { ArgumentFields, When } from './arguments_table.js';
export {
  EarlyStoppingCallback,
  type EarlyStoppingOptions,
  type LogEntry,
  ProgressCallback,
  type TrainerCallback,
  type TrainerControl,
  type TrainerState,
} from './callbacks.js';
export { recompute } from './recompute.js';
export { listCheckpoints } from './snapshots.js';
export { lossCurve, TensorBoardLog } from './logs.js';
export { Trainer } from './trainer.js';
export type { TrainerOptions, TrainOptions, TrainOutput } from './trainer_options.js';
export { SFTTrainer, type SFTTrainerOptions, type TextSource } from './sft_trainer.js';
export { SFTConfig, type SFTConfigOptions, type SFTFields, type SFTOptions } from './sft_config.js';
export { scheduleFactor, type ScheduleOptions, SCHEDULERS, type SchedulerType } from './schedules.js';
export { type BatchSource, CausalLMTrainer } from './fit.js';
export type { CompileArgs, EvaluateArgs, FitArgs, FitCallback, FitExamples, FitLoss, FitMetric, OptimizerName } from './fit_options.js'; // prettier-ignore
export {
  type DataFilesOption,
  Dataset,
  type DatasetDict,
  IterableDataset,
  type IterableDatasetDict,
  load_dataset,
  type LoadDatasetOptions,
  type ShuffleOptions,
  type SplitOptions,
} from './datasets/index.js';
