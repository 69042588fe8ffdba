/** How a model lies on several devices of one process. */
import type { TensorParallel } from '../recurrent_lm.js';
import type { Division } from './division.js';

/** Every device has a part of each layer. */
export interface ParallelDevices {
  /** As in Division. */
  readonly devices: readonly number[];
  readonly plan: TensorParallel;
}

/** Whole layers on each, or a part of each layer. */
export type Spread = Division | ParallelDevices;

export const isParallel = (spread: Spread | null | undefined): spread is ParallelDevices =>
  spread != null && 'plan' in spread;
