/** Ids to be turned into text, in any of the forms in which they come. */
import type * as tf from '@tensorflow/tfjs';
import { TokenizerError } from '../base/errors.js';
import { quote } from '../base/quote.js';
import { isTensor } from '../base/tensors.js';

/** One row of ids: a list, a typed array, a tensor [t], or one id alone. */
export type RowOfIds = ArrayLike<number> | number | tf.Tensor1D | tf.Scalar;

/** Rows of ids: a list of rows, a tensor [b, t], what a tokenizer gives for several texts, or what generate() returns. */
export type RowsOfIds =
  | readonly (ArrayLike<number> | tf.Tensor1D)[]
  | tf.Tensor2D
  | { readonly input_ids: readonly ArrayLike<number>[] | tf.Tensor2D }
  | { readonly sequences: readonly ArrayLike<number>[] | tf.Tensor2D };

/** Anything that holds ids. */
export type AnyIds = RowOfIds | RowsOfIds | tf.Tensor | { readonly input_ids: AnyIds } | { readonly sequences: AnyIds };

/** Rows of ids, and whether one row was given without others around it. */
export interface ReadIds {
  rows: number[][];
  single: boolean;
}

const EXPECTED =
  'expected ids: a list of integers of 0 and more, a typed array, a tensor [t] or [b, t], or rows of these';

const isList = (value: unknown): value is ArrayLike<unknown> =>
  Array.isArray(value) || (ArrayBuffer.isView(value) && !(value instanceof DataView));

/**
 * @param where the method, for messages
 * @throws TokenizerError for what holds no ids, and for numbers that are none
 */
export async function readIds(value: unknown, where: string): Promise<ReadIds> {
  const held = holder(value);
  if (held !== undefined) return readIds(held, where);
  if (typeof value === 'number' || typeof value === 'bigint') return { rows: [row([value], where)], single: true };
  if (isTensor(value)) return ofTensor(value, where);
  if (!isList(value)) throw noIds(value, where);
  const list = Array.from(value);
  if (!list.some((each) => isList(each) || isTensor(each))) return { rows: [row(list, where)], single: true };
  const rows = await Promise.all(list.map((each) => oneRow(each, where)));
  return { rows, single: false };
}

/** A row among others, which holds no rows itself. */
async function oneRow(value: unknown, where: string): Promise<number[]> {
  if (isList(value)) return row(Array.from(value), where);
  if (!isTensor(value) || value.shape.length !== 1) throw noIds(value, where);
  return (await ofTensor(value, where)).rows[0]!;
}

/** What an encoding or an output of generate() holds. */
function holder(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || isList(value) || isTensor(value)) return undefined;
  const { input_ids, sequences } = value as { input_ids?: unknown; sequences?: unknown };
  const held = input_ids ?? sequences;
  // one step only: an object that holds itself would go on for ever
  return isList(held) || isTensor(held) ? held : undefined;
}

async function ofTensor(tensor: tf.Tensor, where: string): Promise<ReadIds> {
  const { shape, dtype } = tensor;
  if (tensor.isDisposed) throw new TokenizerError(`${where} got a tensor that was disposed of before.`, { got: shape });
  if (shape.length > 2 || (dtype !== 'int32' && dtype !== 'float32')) throw noIds(tensor, where);
  const flat = Array.from(await tensor.data());
  if (shape.length < 2) return { rows: [row(flat, where)], single: true };
  const [rows, length] = shape as [number, number];
  return {
    rows: Array.from({ length: rows }, (_, i) => row(flat.slice(i * length, (i + 1) * length), where)),
    single: false,
  };
}

/** Ids beyond 32 bits are none of any vocabulary, and would be wrapped around. */
const MOST = 2 ** 32 - 1;

function row(list: readonly unknown[], where: string): number[] {
  return list.map((each, at) => {
    const id = typeof each === 'bigint' ? Number(each) : each;
    if (typeof id === 'number' && Number.isInteger(id) && id >= 0 && id <= MOST) return id;
    throw new TokenizerError(`${where} got ${quote(each)} at position ${at}; ${EXPECTED}.`, {
      got: each,
      position: at,
    });
  });
}

function noIds(value: unknown, where: string): TokenizerError {
  const what =
    value instanceof Promise
      ? 'a Promise: await it first'
      : typeof value === 'string'
        ? `the text ${quote(value)}, which is none of ids (encode() makes them)`
        : isTensor(value)
          ? `${quote(value)} of ${value.dtype}`
          : quote(value);
  return new TokenizerError(`${where} got ${what}; ${EXPECTED}.`, { got: value });
}
