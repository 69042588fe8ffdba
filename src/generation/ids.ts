/** Ids as callers give them: the one reader of forward(), generate() and prefill(), and the one check of a vocabulary. */
import type * as tf from '@tensorflow/tfjs';
import { ArgumentError } from '../base/errors.js';
import { quote } from '../base/quote.js';
import { isTensor } from '../base/tensors.js';

/** A row of ids, in any of the forms in which ids come. */
export type IdRow = ArrayLike<number>;

/** Ids or a mask: rows, one row, or a tensor [b, t] or [t]. */
export type IdsLike = readonly IdRow[] | IdRow | tf.Tensor;

const isRow = (value: unknown): value is IdRow => Array.isArray(value) || ArrayBuffer.isView(value);

const isNumber = (value: unknown): boolean => typeof value === 'number' || typeof value === 'bigint';

/**
 * Rows of numbers, of any lengths. A single row may be given without brackets around it.
 * @param name of what is read, for messages
 * @throws ArgumentError for a shape that is none
 */
export function readRows(value: unknown, name: string): number[][] {
  if (isTensor(value)) {
    const { shape } = value;
    if (shape.length !== 1 && shape.length !== 2)
      throw new ArgumentError(`${name}: tensor has shape [${shape}], expected [b, t]`, { option: name, got: shape });
    const flat = value.dataSync();
    const t = shape.at(-1)!;
    const rows = shape.length === 2 ? shape[0] : 1;
    return Array.from({ length: rows }, (_, i) => Array.from(flat.subarray(i * t, (i + 1) * t)));
  }
  if (!isRow(value)) {
    throw new ArgumentError(`${name} is ${quote(value, 40)}; expected rows of ids.`, {
      option: name,
      got: value,
    });
  }
  const outer = Array.from(value as ArrayLike<unknown>);
  const rows = outer.length > 0 && outer.every(isNumber) ? [outer] : outer;
  return rows.map((row, index) => {
    if (isRow(row)) return Array.from(row as ArrayLike<unknown>, (value, at) => numberOf(value, at, index, name));
    throw new ArgumentError(`Row ${index} of ${name} is ${String(row)}; expected a list of ids.`, {
      option: name,
      row: index,
      got: row,
    });
  });
}

/** A number among a row's; true and false are those of a mask. */
function numberOf(value: unknown, at: number, row: number, name: string): number {
  if (isNumber(value) || typeof value === 'boolean') return Number(value);
  const deeper = isRow(value) ? ': the rows lie deeper than [[1, 2], [3, 4]]' : '';
  throw new ArgumentError(
    `Row ${row} of ${name} holds ${quote(value)} at position ${at}; expected a number${deeper}.`,
    {
      option: name,
      row,
      position: at,
      got: value,
    },
  );
}

/** @throws ArgumentError for what is no id of a vocabulary of that size, by row and position */
export function checkIds(ids: ArrayLike<number>, row: number, vocab_size: number, name: string): void {
  const position = Array.prototype.findIndex.call(
    ids,
    (id: number) => !Number.isInteger(id) || id < 0 || id >= vocab_size,
  );
  if (position < 0) return;
  throw new ArgumentError(
    `Row ${row} of ${name} holds ${ids[position]} at position ${position}; expected ids from 0 to ${vocab_size - 1}. Is the ` +
      `tokenizer that of this model?`,
    { option: name, row, position, got: ids[position], vocab_size },
  );
}
