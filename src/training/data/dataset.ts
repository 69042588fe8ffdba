/** Batches from a tf.data.Dataset. */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError } from '../../base/errors.js';
import type { Batch } from '../batch.js';

/** A tf.data.Dataset, as far as it is used here. */
export interface DatasetOfBatches {
  iterator(): Promise<{ next(): Promise<IteratorResult<unknown>> }>;
}

export function isDataset(value: object): value is DatasetOfBatches {
  return typeof (value as Partial<DatasetOfBatches>).iterator === 'function';
}

/**
 * One pass over a data set. Its tensors are read and disposed.
 * @throws ArgumentError for an element that has no rows of input_ids and labels
 */
export async function* batchesOf(dataset: DatasetOfBatches): AsyncGenerator<Batch> {
  const iterator = await dataset.iterator();
  for (let next = await iterator.next(); !next.done; next = await iterator.next()) {
    const element = next.value as Record<string, unknown>;
    const read = async ([key, value]: [string, unknown]): Promise<[string, unknown]> => [
      key,
      value instanceof tf.Tensor ? await value.array() : value,
    ];
    const batch = Object.fromEntries(await Promise.all(Object.entries(element).map(read)));
    tf.dispose(element as tf.TensorContainerObject);
    for (const key of ['input_ids', 'labels']) {
      const rows = batch[key];
      if (Array.isArray(rows) && Array.isArray(rows[0])) continue;
      throw new ArgumentError(
        `fitDataset: an element of the data set has ${key in batch ? `${key} that are no rows` : `no ${key}`} (its keys: ${Object.keys(batch).join(', ')}), expected a batch { input_ids: [b, t], labels: [b, t] }; has batch() been called?`,
        { key, keys: Object.keys(batch) },
      );
    }
    yield batch as unknown as Batch;
  }
}
