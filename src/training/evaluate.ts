/** The loss over evaluation data, for the Trainer and for fit. */
import { askedAhead } from '../base/ahead.js';
import { type Batch, preparedBatches, type PreparedBatch } from './batch.js';
import type { TrainingStep } from './step.js';

/**
 * Mean loss over all positions of the batches that count.
 * @param each gets every batch as the step does
 * @returns loss NaN and items 0 where none counts
 */
export async function meanLoss(
  step: TrainingStep,
  batches: AsyncIterable<Batch> | Iterable<Batch>,
  vocab_size: number,
  each?: (batch: PreparedBatch) => Promise<void>,
): Promise<{ loss: number; items: number }> {
  let [sum, items] = [0, 0];
  // the next batch is made while the one before is worked on
  for await (const prepared of askedAhead(preparedBatches(batches, vocab_size))) {
    sum += await step.evaluate(prepared);
    items += prepared.items;
    await each?.(prepared);
  }
  return { loss: sum / items, items };
}
