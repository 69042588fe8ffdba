/** Token ids and masks as users give them, checked and brought to one form. */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError } from '../base/errors.js';
import { checkIds, type IdsLike, readRows } from '../generation/ids.js';

export type { IdsLike };

/** A rectangle of whole numbers on the host. */
export interface IdGrid {
  batch: number;
  length: number;
  values: Int32Array;
}

function evenRows(value: IdsLike, what: string): { rows: number[][]; length: number } {
  const rows = readRows(value, what);
  const length = rows[0]?.length ?? 0;
  const odd = rows.findIndex((row) => row.length !== length);
  if (odd < 0) return { rows, length };
  throw new ArgumentError(
    `${what}: row ${odd} has ${rows[odd]!.length} entries, row 0 has ${length}; pad rows to one length and give attention_mask`,
    { row: odd },
  );
}

/** Whole numbers of any size. @throws ArgumentError when ragged or not whole */
export function intGrid(value: IdsLike, what: string): IdGrid {
  const { rows, length } = evenRows(value, what);
  const values = new Int32Array(rows.length * length);
  rows.forEach((row, i) => {
    for (let j = 0; j < length; j++) {
      const v = row[j]!;
      values[i * length + j] = v;
      // also for a whole number beyond int32, which the array would wrap around
      if (values[i * length + j] !== v)
        throw new ArgumentError(`${what}: entry [${i}, ${j}] is ${v}, expected a whole number of 32 bits`, {
          row: i,
          column: j,
        });
    }
  });
  return { batch: rows.length, length, values };
}

/**
 * @throws ArgumentError when empty, ragged, or an id is outside the vocabulary
 */
export function idGrid(value: IdsLike, vocabSize: number, what = 'input_ids'): IdGrid {
  const { rows, length } = evenRows(value, what);
  if (rows.length === 0 || length === 0)
    throw new ArgumentError(
      `${what}: is empty; a model needs at least one token (give the bos token for an empty prompt)`,
      {},
    );
  rows.forEach((row, i) => checkIds(row, i, vocabSize, what));
  return { batch: rows.length, length, values: Int32Array.from(rows.flat()) };
}

/** Real tokens first, padding after: how to reorder a padded batch, and back. */
export interface Compaction {
  /** [b, t]: 1 at the first lengths[b] positions */
  mask: Float32Array;
  lengths: number[];
  /** Position in the original of each position of the compacted rows, flat over [b·t]; null when nothing moves */
  order: Int32Array | null;
  /** Position in the compacted rows of each original position */
  back: Int32Array | null;
}

/**
 * Reads an attention mask of exactly the input's size. Any pattern is exact: padding on either side, or gaps.
 * @returns null when every position is real
 * @throws ArgumentError when sizes differ or entries are not 0 or 1
 */
export function readMask(value: IdsLike | undefined, batch: number, length: number): Compaction | null {
  if (value === undefined) return null;
  const mask = intGrid(value, 'attention_mask');
  if (mask.batch !== batch || mask.length < length) {
    throw new ArgumentError(
      `attention_mask: has shape [${mask.batch}, ${mask.length}], expected [${batch}, ${length}]`,
      {
        got: [mask.batch, mask.length],
        expected: [batch, length],
      },
    );
  }
  // a mask over the whole history, as generate() keeps one: the last columns are those of this input
  const skip = mask.length - length;
  const order = new Int32Array(batch * length);
  const back = new Int32Array(batch * length);
  const compact = new Float32Array(batch * length);
  const lengths: number[] = [];
  let moved = false;
  let padded = false;
  for (let i = 0; i < batch; i++) {
    const real: number[] = [];
    const pads: number[] = [];
    for (let j = 0; j < length; j++) {
      const v = mask.values[i * mask.length + skip + j]!;
      if (v !== 0 && v !== 1)
        throw new ArgumentError(`attention_mask: entry [${i}, ${skip + j}] is ${v}, expected 0 or 1`, {
          row: i,
          column: skip + j,
        });
      (v ? real : pads).push(j);
    }
    [...real, ...pads].forEach((from, to) => {
      order[i * length + to] = i * length + from;
      back[i * length + from] = i * length + to;
      moved ||= from !== to;
    });
    compact.fill(1, i * length, i * length + real.length);
    padded ||= pads.length > 0;
    lengths.push(real.length);
  }
  if (!padded) return null;
  return { mask: compact, lengths, order: moved ? order : null, back: moved ? back : null };
}

/** Reorders the positions of x [b, t, d] by flat indices. */
export function reorder(x: tf.Tensor3D, order: Int32Array): tf.Tensor3D {
  const [b, t, d] = x.shape;
  return tf.tidy(() => tf.reshape(tf.gather(tf.reshape(x, [b * t, d]), tf.tensor1d(order, 'int32')), [b, t, d]));
}
