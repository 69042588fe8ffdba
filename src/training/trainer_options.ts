/** What a Trainer is made from, and what a run gives. */
import type { TrainingArguments } from './arguments.js';
import type { TrainerCallback } from './callbacks.js';
import type { ExampleSource } from './data/index.js';
import type { TrainableModel } from './trainable.js';

export interface TrainerOptions {
  /** A model, all of it trained; or a model with adapters, they alone trained. */
  model: TrainableModel;
  args: { output_dir: string } & Partial<TrainingArguments>;
  /** Examples as ids: a list, or a stream (then max_steps is needed). */
  train_dataset?: ExampleSource;
  eval_dataset?: ExampleSource;
  callbacks?: readonly TrainerCallback[];
  /** Whole documents packed into rows of max_length. Default false. */
  packing?: boolean;
  /** Default: the longest example's; needed for streams and packing. */
  max_length?: number;
  /** Default: the model's pad token, else 0. It never counts. */
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
  stopped_by: 'SIGINT' | 'SIGTERM' | 'callback' | 'data' | null;
}
