/** Learning-rate schedules, as transformers' get_scheduler has them. */
import { ArgumentError } from '../base/errors.js';
import * as kinds from '../base/option_kinds.js';
import { OptionTable } from '../base/options.js';

export type SchedulerType = 'constant' | 'constant_with_warmup' | 'linear' | 'cosine';
export const SCHEDULERS: readonly SchedulerType[] = ['constant', 'constant_with_warmup', 'linear', 'cosine'];

export interface ScheduleOptions {
  /** Steps over which the rate rises from 0. Not used by 'constant'. Default 0. */
  warmup_steps?: number;
  /** Steps of the whole run; linear and cosine reach 0 there. */
  total_steps: number;
}

const SCHEDULE_TABLE = new OptionTable<ScheduleOptions>(
  'scheduleFactor()',
  { warmup_steps: { kind: kinds.number({ min: 0 }), default: 0 }, total_steps: { kind: kinds.number({ min: 0 }) } },
  { others: { num_warmup_steps: 'warmup_steps', num_training_steps: 'total_steps' } },
);

/**
 * The factor of the learning rate at a step.
 * @param step from 0
 * @throws ArgumentError for an unknown type
 * @example
 * const rate = 1e-3 * scheduleFactor('cosine', 10, { warmup_steps: 5, total_steps: 100 });
 */
export function scheduleFactor(type: SchedulerType, step: number, options: ScheduleOptions): number {
  SCHEDULE_TABLE.check(options);
  const { warmup_steps: warmup = 0, total_steps: total } = options;
  if (!SCHEDULERS.includes(type)) {
    throw new ArgumentError(`lr_scheduler_type is '${String(type)}', expected one of ${SCHEDULERS.join(', ')}`, {
      lr_scheduler_type: type,
    });
  }
  if (type === 'constant') return 1;
  if (step < warmup) return step / Math.max(1, warmup);
  if (type === 'constant_with_warmup') return 1;
  const left = Math.max(1, total - warmup);
  if (type === 'linear') return Math.max(0, (total - step) / left);
  return Math.max(0, 0.5 * (1 + Math.cos(Math.PI * ((step - warmup) / left))));
}
