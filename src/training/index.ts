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
export { type TrainingArguments, trainingArguments } from './arguments.js';
export {
  EarlyStoppingCallback,
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
export type { TrainerOptions, TrainOutput } from './trainer_options.js';
export { SFTTrainer, type SFTOptions, type SFTTrainerOptions } from './sft_trainer.js';
export { scheduleFactor, type ScheduleOptions, SCHEDULERS, type SchedulerType } from './schedules.js';
export { CausalLMTrainer, type CompileArgs, type FitArgs, type FitCallback, type FitMetric } from './fit.js';
