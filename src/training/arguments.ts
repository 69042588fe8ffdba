/** TrainingArguments: options of a training run, by their names in transformers. */
import { ArgumentError } from '../base/errors.js';
import { type ArgumentFields, TRAINING_TABLE } from './arguments_table.js';

/** What TrainingArguments is made from, and what Trainer takes in their place. */
export type TrainingOptions = { output_dir: string } & Partial<ArgumentFields>;

/* eslint-disable @typescript-eslint/no-unsafe-declaration-merging, @typescript-eslint/no-empty-object-type -- the options are plain, mutable fields */
/**
 * Options of a training run, as transformers has them: plain fields, with the defaults where nothing was given.
 *
 * @example
 * const args = new TrainingArguments({ output_dir: './results', num_train_epochs: 3, logging_steps: 10 });
 * args.learning_rate; // 5e-5
 */
export interface TrainingArguments extends ArgumentFields {}
export class TrainingArguments {
  /** @throws ArgumentError naming an unknown option, a wrong value, or one without effect */
  constructor(options: TrainingOptions) {
    const fields = this.filled(options);
    if (fields.output_dir === undefined) {
      throw new ArgumentError(
        `${this.constructor.name} needs output_dir, the folder that snapshots and logs are written to.`,
        { option: 'output_dir' },
      );
    }
    Object.assign(this, fields);
  }

  /** The options, checked, with defaults. */
  protected filled(options: TrainingOptions): Partial<ArgumentFields> {
    TRAINING_TABLE.checkObject(options);
    return TRAINING_TABLE.fill(options);
  }

  /** The fields, without the class. */
  to_dict(): ArgumentFields {
    return { ...this };
  }

  /** The fields as JSON. */
  to_json_string(): string {
    return JSON.stringify(this, null, 2);
  }
}
/* eslint-enable */

/** The arguments themselves, checked again since their fields may be changed; or made from options. @throws as the constructor */
export function trainingArguments(given: TrainingOptions): TrainingArguments {
  if (!(given instanceof TrainingArguments)) return new TrainingArguments(given);
  TRAINING_TABLE.check(given);
  return given;
}

/** A number of updates: an option of 1 or more as it is, one below 1 as a share of all. */
export function updatesOf(value: number, total: number): number {
  return value > 0 && value < 1 ? Math.ceil(value * total) : value;
}

/** Optimizer steps of a run, at least one. @param epochs may end within one @param stepsOf steps of an epoch, by its number */
export function plannedSteps(epochs: number, stepsOf: (epoch: number) => number): number {
  let total = 0;
  for (let epoch = 0; epoch < Math.floor(epochs); epoch++) total += stepsOf(epoch);
  return Math.max(1, Math.ceil(total + (epochs % 1) * stepsOf(Math.floor(epochs))));
}
