/** Whether the device has room for a batch, asked before a program is made for it. */
import { DeviceError } from '../base/errors.js';
import { checkMemory } from '../base/memory.js';
import type { RecurrentLM } from '../engine/recurrent_lm.js';
import { largestGpuMemory, onGpu } from '../runtime/index.js';
import type { BatchShape } from './batch.js';

const ADVICE = 'Use a smaller per_device_train_batch_size (with gradient_accumulation_steps), or shorter rows.';

const gib = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(1)} GiB`;

/**
 * A step keeps the stream before each layer for the gradients, float32; within one layer at a time there is more. On a GPU only what no card
 * of that size can hold is refused here: what is free of it changes, and TensorFlow gives its own other memory back, so it says the rest itself.
 * @param gradients whether they are made: evaluation keeps one layer's
 * @param card bytes of the GPU that it runs on, null for a CPU. Default: of the device in use
 * @throws DeviceError saying how much a batch takes at least and how much there is
 */
export function checkBatchMemory(
  network: Pick<RecurrentLM, 'config'>,
  { batch, length }: Pick<BatchShape, 'batch' | 'length'>,
  gradients: boolean,
  card: number | null = onGpu() ? largestGpuMemory() : null,
): void {
  const { hidden_size, num_hidden_layers } = network.config;
  // beside those kept: what is within a layer, of which bfloat16 and XLA's fusion leave a GPU no more than two for certain
  const within = card === null ? (gradients ? 12 : 6) : 2;
  const streams = within + (gradients ? num_hidden_layers : 0);
  const needed = batch * length * 4 * hidden_size * streams;
  const what = `Training: a batch of ${batch} × ${length} ids`;
  if (card === null) return checkMemory(needed, what, ADVICE);
  if (needed <= card) return;
  throw new DeviceError(
    `${what} would take at least ${gib(needed)} of memory, and the GPU has ${gib(card)}. ${ADVICE}`,
    { needed, total: card },
  );
}
