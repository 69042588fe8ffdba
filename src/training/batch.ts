/** Batches of training: as collators make them, and as a step takes them. */
import { ArgumentError } from '../base/errors.js';
import * as kinds from '../base/option_kinds.js';
import { OptionTable } from '../base/options.js';
import { IGNORE_INDEX } from '../layers/index.js';

/** Rows of one length. */
export interface Batch {
  /** [b, t] */
  input_ids: readonly (readonly number[])[];
  /** [b, t]; position t predicts label t+1; IGNORE_INDEX (-100) is left out */
  labels: readonly (readonly number[])[];
  /** [b, t], 1 for text and 0 for padding, any pattern. Default: all text. */
  attention_mask?: readonly (readonly number[])[];
  /** [b, t], the number of the document that each position belongs to (packing). Default: one document per row. */
  segments?: readonly (readonly number[])[];
}

const rows = {
  kind: kinds.named(
    'rows of numbers',
    (v) => Array.isArray(v) && v.every((row) => Array.isArray(row) || ArrayBuffer.isView(row)),
  ),
};

const BATCH_TABLE = new OptionTable<Batch>(
  'A batch',
  { input_ids: rows, labels: rows, attention_mask: rows, segments: rows },
  {
    others: {
      label_ids: 'labels',
      mask: 'attention_mask',
      seq_idx: 'segments',
      position_ids: { why: 'the model has no positions; segments tell documents apart' },
    },
  },
);

/** A batch ready for a step: typed arrays, padding behind the text, labels shifted. */
export interface PreparedBatch {
  batch: number;
  length: number;
  /** [b·t] */
  ids: Int32Array;
  /** [b·t], the id to predict at each position; 0 where the weight is 0 */
  labels: Int32Array;
  /** [b·t], 1 where the position counts */
  weights: Float32Array;
  /** [b·t], or null when every row is one document */
  segments: Int32Array | null;
  /** Positions that count. */
  items: number;
  /** Positions that are text. */
  tokens: number;
}

/** What decides which compiled function a batch runs through. */
export interface BatchShape {
  batch: number;
  length: number;
  segments: boolean;
}

/** @throws ArgumentError where this is no batch, or has a field that is none */
export function checkBatch(batch: Batch): void {
  BATCH_TABLE.checkObject(batch);
  BATCH_TABLE.check(batch);
}

/**
 * Checks a batch and brings it to the form of a step. Padding is moved behind each row's text, where it cannot reach it
 * (the model is causal): left, right and no padding give the same loss, with no mask in the program. A position never
 * predicts the first token of the next document.
 *
 * @throws ArgumentError for ragged rows, ids or labels outside the vocabulary
 */
export function prepareBatch(batch: Batch, vocab_size: number): PreparedBatch {
  checkBatch(batch);
  const b = batch.input_ids.length;
  const t = batch.input_ids[0]?.length ?? 0;
  if (b === 0 || t === 0) throw new ArgumentError('batch: has no tokens', {});
  for (const key of ['input_ids', 'labels', 'attention_mask', 'segments'] as const) {
    const rows = batch[key];
    if (rows === undefined) continue;
    const bad = rows.findIndex((row) => row.length !== t);
    if (rows.length === b && bad < 0) continue;
    const got = rows.length !== b ? `${rows.length} rows` : `${rows[bad]!.length} entries in row ${bad}`;
    throw new ArgumentError(`batch: ${key} has ${got}, expected ${b} rows of ${t} entries, as input_ids`, {
      key,
      got: rows.map((row) => row.length),
      expected: [b, t],
    });
  }
  const out: PreparedBatch = {
    batch: b,
    length: t,
    ids: new Int32Array(b * t),
    labels: new Int32Array(b * t),
    weights: new Float32Array(b * t),
    segments: batch.segments ? new Int32Array(b * t) : null,
    items: 0,
    tokens: 0,
  };
  for (let i = 0; i < b; i++) {
    const mask = batch.attention_mask?.[i];
    const real: number[] = [];
    const pads: number[] = [];
    for (let j = 0; j < t; j++) (mask && mask[j] === 0 ? pads : real).push(j);
    out.tokens += real.length;
    const order = [...real, ...pads];
    const segments = batch.segments?.[i];
    order.forEach((from, to) => {
      const id = batch.input_ids[i]![from]!;
      if (!Number.isInteger(id) || id < 0 || id >= vocab_size) {
        throw new ArgumentError(
          `batch: input_ids [${i}, ${from}] is ${id}, outside the vocabulary of ${vocab_size}; do model and tokenizer belong together?`,
          { id, vocab_size },
        );
      }
      out.ids[i * t + to] = id;
      if (out.segments) out.segments[i * t + to] = segments![from]!;
      if (to + 1 >= real.length) return;
      const next = order[to + 1]!;
      const label = batch.labels[i]![next]!;
      if (label === IGNORE_INDEX || (segments && segments[next] !== segments[from])) return;
      if (!Number.isInteger(label) || label < 0 || label >= vocab_size) {
        throw new ArgumentError(
          `batch: label ${label} at [${i}, ${next}] is neither ${IGNORE_INDEX} nor within the vocabulary of ${vocab_size}`,
          { label },
        );
      }
      out.labels[i * t + to] = label;
      out.weights[i * t + to] = 1;
      out.items++;
    });
  }
  return out;
}

/** Batches, prepared when they are asked for. */
export async function* preparedBatches(
  batches: AsyncIterable<Batch> | Iterable<Batch>,
  vocab_size: number,
): AsyncGenerator<PreparedBatch> {
  for await (const batch of batches) yield prepareBatch(batch, vocab_size);
}

/** The shapes that batches of some epochs have, each once. @param from a DataLoader, or anything that gives an epoch's batches */
export async function batchShapes(
  from: { batches(epoch: number): AsyncIterable<Batch> },
  epochs: number,
): Promise<BatchShape[]> {
  const found = new Map<string, BatchShape>();
  for (let epoch = 0; epoch < epochs; epoch++) {
    for await (const { input_ids, segments } of from.batches(epoch)) {
      const shape = { batch: input_ids.length, length: input_ids[0]!.length, segments: segments !== undefined };
      found.set(JSON.stringify(shape), shape);
    }
  }
  return [...found.values()];
}
