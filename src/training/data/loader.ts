/** Batches of an epoch, in an order that seed and epoch alone decide: a resumed run sees what the unbroken one would. */
import { ArgumentError } from '../../base/errors.js';
import * as kinds from '../../base/option_kinds.js';
import { OptionTable } from '../../base/options.js';
import { RandomStream } from '../../generation/random.js';
import type { Batch } from '../batch.js';
import { bucketLengths, collate, collatePacked, packRows } from './collate.js';
import type { TokenizedExample } from './tokenize.js';

/** A list, or a stream that can be begun again for every epoch. */
export type ExampleSource =
  readonly TokenizedExample[] | AsyncIterable<TokenizedExample> | (() => AsyncIterable<TokenizedExample>);

/** What examples may come as. */
export const sourceKind = kinds.named(
  'a list of examples, a data set of load_dataset(), a stream (an async iterable), or a function that makes one',
  (v) =>
    Array.isArray(v) ||
    typeof v === 'function' ||
    typeof (v as Partial<AsyncIterable<unknown>> | null | undefined)?.[Symbol.asyncIterator] === 'function',
);

export interface LoaderOptions {
  batch_size: number;
  seed: number;
  /** Default true. A stream is shuffled within `shuffle_buffer` examples. */
  shuffle?: boolean;
  /** Default 1000. */
  shuffle_buffer?: number;
  pad_token_id: number;
  padding_side?: 'left' | 'right';
  /** Row length of packed batches, and the last bucket. */
  max_length: number;
  /** Whole documents packed into rows of max_length. Default false. */
  packing?: boolean;
  /** Examples of like length together, padded to a few lengths. Default true; false pads to the longest of each batch. */
  bucket?: boolean;
  /** Leave out the last, smaller batch. Default false. */
  drop_last?: boolean;
}

const count = { kind: kinds.integer({ min: 1 }) };
const flag = { kind: kinds.boolean };

const LOADER_TABLE = new OptionTable<LoaderOptions>(
  'new DataLoader()',
  {
    batch_size: count,
    seed: { kind: kinds.integer({ min: 0 }) },
    shuffle: { ...flag, default: true },
    shuffle_buffer: { ...count, default: 1000 },
    pad_token_id: { kind: kinds.integer({ min: 0 }) },
    padding_side: { kind: kinds.oneOf('left', 'right') },
    max_length: count,
    packing: { ...flag, default: false },
    bucket: { ...flag, default: true },
    drop_last: { ...flag, default: false },
  },
  {
    others: { num_workers: { why: 'one process reads', off: [0] }, collate_fn: { why: 'collate() makes the batches' } },
  },
);

/** Indices 0 … n-1 in an order decided by seed and epoch (Fisher and Yates). */
export function shuffled(n: number, seed: number, epoch: number): number[] {
  const random = new RandomStream(seed, epoch);
  const order = Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1; i > 0; i--) {
    const j = Math.floor(random.uniform() * (i + 1));
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return order;
}

function chunks<T>(items: readonly T[], size: number, dropLast: boolean): T[][] {
  const out: T[][] = [];
  for (let i = 0; i < items.length; i += size) out.push(items.slice(i, i + size));
  if (dropLast && out.length > 1 && out[out.length - 1]!.length < size) out.pop();
  return out;
}

/** How many batches' worth of examples are sorted by length together. */
const SORTED = 50;

export class DataLoader {
  private readonly lengths: readonly number[] | undefined;
  private readonly counted = new Map<number, number>();

  constructor(
    private readonly source: ExampleSource,
    private readonly options: LoaderOptions,
  ) {
    LOADER_TABLE.check(options);
    if (Array.isArray(source) && source.length === 0)
      throw new ArgumentError('DataLoader: the data set has no examples', {});
    const longest = Array.isArray(source)
      ? (source as readonly TokenizedExample[]).reduce((most, e) => Math.max(most, e.input_ids.length), 0)
      : options.max_length;
    this.lengths = options.bucket === false ? undefined : bucketLengths(Math.min(options.max_length, longest));
  }

  /** True when the number of batches is known: the data is a list. */
  get sized(): boolean {
    return Array.isArray(this.source);
  }

  /** Number of batches of an epoch. Packing may give another number in another epoch. @throws ArgumentError for a stream */
  size(epoch = 0): number {
    if (!Array.isArray(this.source)) throw new ArgumentError('DataLoader: a stream has no size; set max_steps', {});
    let size = this.counted.get(epoch);
    if (size === undefined)
      this.counted.set(epoch, (size = this.plan(this.source as readonly TokenizedExample[], epoch).length));
    return size;
  }

  private plan(examples: readonly TokenizedExample[], epoch: number): (() => Batch)[] {
    const {
      batch_size,
      seed,
      shuffle = true,
      packing,
      pad_token_id,
      max_length,
      drop_last = false,
      padding_side,
    } = this.options;
    const order = shuffle ? shuffled(examples.length, seed, 2 * epoch) : examples.map((_, i) => i);
    if (packing) {
      // packed over the whole list, then the rows in a shuffled order of their own
      const rows = packRows(
        order.map((i) => examples[i]!.input_ids.length),
        max_length,
      ).map((row) => row.map((k) => examples[order[k]!]!));
      const mixed = shuffle ? shuffled(rows.length, seed, 2 * epoch + 1).map((i) => rows[i]!) : rows;
      return chunks(mixed, batch_size, drop_last).map((part) => () => collatePacked(part, max_length, pad_token_id));
    }
    const pad = (part: readonly number[]) => (): Batch =>
      collate(
        part.map((i) => examples[i]!),
        { pad_token_id, padding_side, lengths: this.lengths },
      );
    if (!shuffle || !this.lengths) return chunks(order, batch_size, drop_last).map(pad);
    const parts = chunks(order, batch_size * SORTED, false).flatMap((group) => {
      const sorted = [...group].sort((a, b) => examples[a]!.input_ids.length - examples[b]!.input_ids.length);
      return chunks(sorted, batch_size, false);
    });
    const kept = drop_last && parts.length > 1 ? parts.filter((part) => part.length === batch_size) : parts;
    return shuffled(kept.length, seed, 2 * epoch + 1).map((i) => pad(kept[i]!));
  }

  /** The batches of an epoch, from the number `skip` on. */
  async *batches(epoch: number, skip = 0): AsyncGenerator<Batch> {
    const { source, options } = this;
    if (Array.isArray(source)) {
      for (const make of this.plan(source as readonly TokenizedExample[], epoch).slice(skip)) yield make();
      return;
    }
    // a stream goes through a buffer that is dealt out as if it were a list
    const stream = typeof source === 'function' ? source() : (source as AsyncIterable<TokenizedExample>);
    let buffer: TokenizedExample[] = [];
    let done = 0;
    let part = 0;
    const deal = function* (this: DataLoader): Generator<Batch> {
      for (const make of this.plan(buffer, epoch * 100_003 + part++)) if (done++ >= skip) yield make();
      buffer = [];
    }.bind(this);
    const size = Math.max(options.batch_size, options.shuffle_buffer ?? 1000);
    for await (const example of stream) {
      buffer.push(example);
      if (buffer.length >= size) yield* deal();
    }
    if (buffer.length > 0) yield* deal();
  }
}
