/** Where a run stands in its data, and what is said when it cannot go on. */
import { TrainingError } from '../base/errors.js';
import type { TrainerState } from './callbacks.js';
import type { DataLoader } from './data/index.js';

/** A pass over the data, and the updates made before it. */
export interface Position {
  epoch: number;
  done: number;
}

/** The pass that a run of `state.global_step` updates is in. @param stepsOf updates of an epoch of a list, by its number */
export async function positionOf(
  loader: DataLoader,
  state: TrainerState,
  accumulation: number,
  stepsOf: (epoch: number) => number,
): Promise<Position> {
  let [epoch, done] = [0, 0];
  if (loader.sized) {
    while (state.global_step >= done + stepsOf(epoch)) done += stepsOf(epoch++);
    return { epoch, done };
  }
  if (state.epoch_start !== undefined) return { epoch: state.epoch, done: state.epoch_start };
  // snapshots of earlier versions do not say where their pass over a stream began: the passes before it are counted
  for (; epoch < state.epoch; epoch++) {
    let batches = 0;
    for (const pass = loader.batches(epoch); !(await pass.next()).done;) batches++;
    done += Math.ceil(batches / accumulation);
  }
  return { epoch, done };
}

/** An update whose loss or gradients are not finite. @param batches the first and the last of the epoch's batches in it */
export function notFinite(
  step: number,
  epoch: number,
  batches: readonly [number, number],
  loss: number,
  grad_norm: number,
): TrainingError {
  const what = Number.isFinite(loss) ? `the gradients' norm is ${grad_norm}` : `the loss is ${loss}`;
  return new TrainingError(
    `Step ${step} (epoch ${epoch}, batches ${batches[0]} to ${batches[1]}): ${what}. The weights are those of step ${step - 1}. Lower learning_rate, or look at this batch's examples.`,
    { step, epoch, batches, loss, grad_norm },
  );
}
