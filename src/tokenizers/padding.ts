/** Cutting and padding rows of ids. */
import { TokenizerError } from '../base/errors.js';

export type Side = 'left' | 'right';

/** Where an encoding is cut: the ids of a text with special tokens around it, and of the text alone. */
export interface Cut {
  ids: readonly number[];
  body: readonly number[];
  length: number;
  side: Side;
}

/**
 * Cuts the ids of a text to a length. The tokens around a text stay: it is the text that is cut, as in transformers.
 * @throws TokenizerError when there is no room for the tokens around it
 */
export function cutIds({ ids, body, length, side }: Cut): number[] {
  const around = ids.length - body.length;
  if (around > length) {
    throw new TokenizerError(
      `max_length is ${length}, and the tokenizer puts ${around} special tokens around every text: there is no room ` +
        `for them. Raise max_length, or set add_special_tokens: false.`,
      { option: 'max_length', got: length, special_tokens: around },
    );
  }
  const before = around === 0 ? 0 : startOf(body, ids);
  const room = length - around;
  const kept = side === 'left' ? body.slice(body.length - room) : body.slice(0, room);
  return [...ids.slice(0, before), ...kept, ...ids.slice(before + body.length)];
}

/** Where a text's own ids begin among those with special tokens around it. */
function startOf(body: readonly number[], ids: readonly number[]): number {
  let at = 0;
  while (at < ids.length - body.length && !body.every((id, i) => ids[at + i] === id)) at++;
  return at;
}

/** The length of the longest row. Not Math.max(...): there may be more rows than a call may have arguments. */
export function longest(rows: readonly (readonly number[])[]): number {
  return rows.reduce((most, row) => Math.max(most, row.length), 0);
}

/** Rows with an id put before or behind them up to a length; rows that are longer stay. */
export function padRows(rows: readonly (readonly number[])[], length: number, id: number, side: Side): number[][] {
  return rows.map((row) => {
    const pads = new Array<number>(Math.max(0, length - row.length)).fill(id);
    return side === 'left' ? [...pads, ...row] : [...row, ...pads];
  });
}
