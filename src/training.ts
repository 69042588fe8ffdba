/** `tfjs-mamba2/training`: the trainers of the main entry, and what they are made of: data, batches, the step, schedules. */
export {
  CausalLMTrainer,
  type CompileArgs,
  EarlyStoppingCallback,
  type FitArgs,
  type FitCallback,
  type FitMetric,
  listCheckpoints,
  type LogEntry,
  lossCurve,
  ProgressCallback,
  SFTTrainer,
  type SFTOptions,
  type SFTTrainerOptions,
  TensorBoardLog,
  Trainer,
  type TrainerCallback,
  type TrainerControl,
  type TrainerOptions,
  type TrainerState,
  type TrainingArguments,
  trainingArguments,
  type TrainOutput,
} from './training/index.js';

// data
export {
  bucketLengths,
  collate,
  collatePacked,
  DataLoader,
  type Example,
  type ExampleSource,
  loadExamples,
  type LoaderOptions,
  packRows,
  type PadOptions,
  readExamples,
  type ReadOptions,
  shuffled,
  splitExamples,
  type TokenizedExample,
  tokenizeExample,
  tokenizeExamples,
  type TokenizeOptions,
} from './training/index.js';

// the step and its optimizer
export {
  AdamW,
  type AdamWArgs,
  type AdamWSettings,
  type Batch,
  createStep,
  type Moments,
  type ObjectiveOptions,
  prepareBatch,
  type PreparedBatch,
  scheduleFactor,
  type ScheduleOptions,
  SCHEDULERS,
  type SchedulerType,
  type StepOptions,
  type StepResult,
  type Trainable,
  type TrainableModel,
  trainableOf,
  type TrainingStep,
} from './training/index.js';
export { IGNORE_INDEX } from './layers/index.js';
export { causalLoss } from './models/loss.js';
export { Mamba2Error, TrainingError } from './base/errors.js';
