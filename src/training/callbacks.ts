/** What happens around training steps: callbacks by the names of transformers. */
import * as kinds from '../base/option_kinds.js';
import { OptionTable } from '../base/options.js';
import type { TrainingArguments } from './arguments.js';

/** One entry of the log. */
export type LogEntry = Readonly<Record<string, number>> & { readonly step: number };

/** Where a run stands; saved with every snapshot. */
export interface TrainerState {
  /** Updates made. */
  global_step: number;
  /** Updates of the whole run; 0 while unknown. */
  max_steps: number;
  /** Epochs done, with fractions. */
  epoch: number;
  /** Updates made before the epoch under way; not in snapshots of earlier versions. */
  epoch_start?: number;
  /** Losses of the updates since the last entry of the log, summed; not in snapshots of earlier versions. */
  since_log?: { loss: number; steps: number };
  /** Tokens seen, padding not counted. */
  num_input_tokens_seen: number;
  log_history: LogEntry[];
  best_metric: number | null;
  best_step: number | null;
}

/** Set by callbacks, acted upon after the step. */
export interface TrainerControl {
  should_stop: boolean;
  should_save: boolean;
  should_evaluate: boolean;
}

export interface TrainerCallback {
  on_train_begin?(args: TrainingArguments, state: TrainerState, control: TrainerControl): void | Promise<void>;
  on_step_end?(args: TrainingArguments, state: TrainerState, control: TrainerControl): void | Promise<void>;
  on_log?(args: TrainingArguments, state: TrainerState, control: TrainerControl, entry: LogEntry): void | Promise<void>;
  on_evaluate?(
    args: TrainingArguments,
    state: TrainerState,
    control: TrainerControl,
    entry: LogEntry,
  ): void | Promise<void>;
  on_save?(args: TrainingArguments, state: TrainerState, control: TrainerControl, dir: string): void | Promise<void>;
  on_train_end?(args: TrainingArguments, state: TrainerState, control: TrainerControl): void | Promise<void>;
}

export interface EarlyStoppingOptions {
  /** Evaluations without a better loss. Default 1. */
  early_stopping_patience?: number;
  /** What a better loss is below the best by, at least. Default 0. */
  early_stopping_threshold?: number;
}

const EARLY_STOPPING_TABLE = new OptionTable<EarlyStoppingOptions>(
  'new EarlyStoppingCallback()',
  {
    early_stopping_patience: { kind: kinds.integer({ min: 1 }), default: 1 },
    early_stopping_threshold: { kind: kinds.number({ min: 0 }), default: 0 },
  },
  {
    others: {
      patience: 'early_stopping_patience',
      threshold: 'early_stopping_threshold',
      minDelta: 'early_stopping_threshold',
      monitor: { why: 'it is the evaluation loss that is watched', off: ['eval_loss', 'val_loss'] },
    },
  },
);

/** Stops when the evaluation loss has not fallen by a threshold for as many evaluations as there is patience. */
export class EarlyStoppingCallback implements TrainerCallback {
  private best = Infinity;
  private waited = 0;
  private readonly patience: number;
  private readonly threshold: number;

  /** @param options as transformers names them; or the patience @param threshold beside a patience */
  constructor(options: EarlyStoppingOptions | number = {}, threshold?: number) {
    const given =
      typeof options === 'number' ? { early_stopping_patience: options, early_stopping_threshold: threshold } : options;
    const filled = EARLY_STOPPING_TABLE.fill<keyof EarlyStoppingOptions>(given);
    this.patience = filled.early_stopping_patience;
    this.threshold = filled.early_stopping_threshold;
  }

  /** What a resumed run had waited for before is in its log. */
  on_train_begin(_args: TrainingArguments, state: TrainerState): void {
    this.best = Infinity;
    this.waited = 0;
    for (const { eval_loss } of state.log_history) if (eval_loss !== undefined) this.see(eval_loss);
  }

  on_evaluate(_args: TrainingArguments, _state: TrainerState, control: TrainerControl, entry: LogEntry): void {
    this.see(entry['eval_loss']!);
    if (this.waited >= this.patience) control.should_stop = true;
  }

  private see(loss: number): void {
    const better = loss < this.best - this.threshold;
    this.waited = better ? 0 : this.waited + 1;
    if (better) this.best = loss;
  }
}

/** A progress bar on standard error, where that is a terminal. */
export class ProgressCallback implements TrainerCallback {
  private start = 0;
  private first = 0;
  private loss = NaN;
  constructor(private readonly stream: NodeJS.WriteStream = process.stderr) {}

  on_train_begin(_args: TrainingArguments, state: TrainerState): void {
    this.start = performance.now();
    this.first = state.global_step;
    this.draw(state, 'compiling');
  }

  on_log(_args: TrainingArguments, _state: TrainerState, _control: TrainerControl, entry: LogEntry): void {
    this.loss = entry['loss'] ?? this.loss;
  }

  on_step_end(_args: TrainingArguments, state: TrainerState): void {
    const seconds = (performance.now() - this.start) / 1000;
    const rate = (state.global_step - this.first) / seconds;
    const left = state.max_steps > 0 ? (state.max_steps - state.global_step) / rate : NaN;
    const time = Number.isFinite(left)
      ? `, ${left < 90 ? `${Math.round(left)} s` : `${Math.round(left / 60)} min`} left`
      : '';
    this.draw(state, `loss ${Number.isNaN(this.loss) ? '…' : this.loss.toFixed(4)}${time}`);
  }

  on_train_end(): void {
    if (this.stream.isTTY) this.stream.write('\r\x1b[K');
  }

  private draw(state: TrainerState, text: string): void {
    if (!this.stream.isTTY) return;
    const part = state.max_steps > 0 ? state.global_step / state.max_steps : 0;
    const bar = '#'.repeat(Math.round(part * 30)).padEnd(30);
    this.stream.write(`\rTraining [${bar}] ${state.global_step}/${state.max_steps || '?'}  ${text}\x1b[K`);
  }
}
