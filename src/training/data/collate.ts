/** Tokenised examples to batches: padded, or packed into rows of one length. */
import { ArgumentError } from '../../base/errors.js';
import * as kinds from '../../base/option_kinds.js';
import { OptionTable } from '../../base/options.js';
import { IGNORE_INDEX } from '../../layers/index.js';
import type { Batch } from '../batch.js';
import { checkLabels } from './learnable.js';
import type { TokenizedExample } from './tokenize.js';

export interface PadOptions {
  /** Id at padded positions; it never counts. */
  pad_token_id: number;
  /** Default 'right', as trl. The loss is the same on either side. */
  padding_side?: 'left' | 'right';
  /** Lengths that rows are padded to: the first that suffices. Default: the longest row. */
  lengths?: readonly number[];
}

const PAD_TABLE = new OptionTable<PadOptions>('collate()', {
  pad_token_id: { kind: kinds.integer({ min: 0 }) },
  padding_side: { kind: kinds.oneOf('left', 'right'), default: 'right' },
  lengths: { kind: kinds.listOf(kinds.integer({ min: 1 }), 'lengths') },
});

/** Rows of one length with labels and mask. @throws ArgumentError for an empty batch, or labels that are not as many as ids */
export function collate(examples: readonly TokenizedExample[], options: PadOptions): Batch {
  PAD_TABLE.check(options);
  if (examples.length === 0) throw new ArgumentError('collate: got no examples', {});
  examples.forEach(checkLabels);
  const longest = Math.max(...examples.map(({ input_ids }) => input_ids.length));
  const length = options.lengths?.find((n) => n >= longest) ?? longest;
  const fill = (row: readonly number[], value: number): number[] => {
    const pads = new Array<number>(length - row.length).fill(value);
    return options.padding_side === 'left' ? [...pads, ...row] : [...row, ...pads];
  };
  return {
    input_ids: examples.map(({ input_ids }) => fill(input_ids, options.pad_token_id)),
    labels: examples.map(({ input_ids, labels }) => fill(labels ?? input_ids, IGNORE_INDEX)),
    attention_mask: examples.map(({ input_ids }) =>
      fill(
        input_ids.map(() => 1),
        0,
      ),
    ),
  };
}

/**
 * Which examples go into which row of `length` positions: each to the row where the least room is left over (best fit,
 * longest first), so that little is padding.
 * @returns indices row by row
 */
export function packRows(sizes: readonly number[], length: number): number[][] {
  const order = sizes.map((_, i) => i).sort((a, b) => sizes[b]! - sizes[a]! || a - b);
  const rows: { items: number[]; room: number }[] = [];
  for (const i of order) {
    const size = sizes[i]!;
    if (size > length)
      throw new ArgumentError(
        `pack: an example of ${size} tokens does not fit into ${length}; truncate it to max_length`,
        { size, length },
      );
    let best: (typeof rows)[number] | null = null;
    for (const row of rows) if (row.room >= size && (!best || row.room < best.room)) best = row;
    if (!best) rows.push((best = { items: [], room: length }));
    best.items.push(i);
    best.room -= size;
  }
  return rows.map(({ items }) => items);
}

/**
 * Rows of whole documents, with the number of the document at each position: the state starts anew at every border.
 * @throws ArgumentError when a document's labels are not as many as its ids
 */
export function collatePacked(
  rows: readonly (readonly TokenizedExample[])[],
  length: number,
  pad_token_id: number,
): Batch {
  rows.flat().forEach(checkLabels);
  const fill = (row: number[], value: number): number[] => [
    ...row,
    ...new Array<number>(length - row.length).fill(value),
  ];
  return {
    input_ids: rows.map((row) =>
      fill(
        row.flatMap(({ input_ids }) => [...input_ids]),
        pad_token_id,
      ),
    ),
    labels: rows.map((row) =>
      fill(
        row.flatMap(({ input_ids, labels }) => [...(labels ?? input_ids)]),
        IGNORE_INDEX,
      ),
    ),
    attention_mask: rows.map((row) =>
      fill(
        row.flatMap(({ input_ids }) => input_ids.map(() => 1)),
        0,
      ),
    ),
    segments: rows.map((row) =>
      fill(
        row.flatMap(({ input_ids }, i) => input_ids.map(() => i)),
        row.length,
      ),
    ),
  };
}

/** A few lengths up to `most`, each half again or twice the one before: rows are padded to these, so that few programs are compiled. */
export function bucketLengths(most: number): number[] {
  const lengths: number[] = [];
  for (let n = 32; n < most; n *= 2) lengths.push(n, n * 1.5);
  return [...lengths.filter((n) => n < most), most];
}
