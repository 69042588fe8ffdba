/** Why a scheduler takes no request. */
import { Mamba2Error } from '../../base/errors.js';

/** As many wait as may. `data` has { waiting, limit, retry_after }, the latter in seconds: when there is likely room. */
export class QueueFullError extends Mamba2Error {
  override name = 'QueueFullError';
}

/** It was told to end. */
export class SchedulerClosedError extends Mamba2Error {
  override name = 'SchedulerClosedError';
}

/** There is no kept state of that id. `data` has { id }. */
export class UnknownStateError extends Mamba2Error {
  override name = 'UnknownStateError';
}

/** Kept states fill the budget of the state cache. `data` has { bytes, budget }. */
export class StatesFullError extends Mamba2Error {
  override name = 'StatesFullError';
}
