/** Data sets as load_dataset() gives them, by the names of Python's datasets: rows in memory, or a stream of them. */
import { ArgumentError } from '../../base/errors.js';
import * as kinds from '../../base/option_kinds.js';
import { OptionTable } from '../../base/options.js';
import { quote } from '../../base/quote.js';
import { shuffled } from '../data/loader.js';
import type { Example } from '../data/readers.js';

export interface ShuffleOptions {
  /** Of the order. Default 42. */
  seed?: number;
}

export interface SplitOptions extends ShuffleOptions {
  /** Rows of the test set, or a share below 1. Default 0.25. */
  test_size?: number;
  /** Default true. */
  shuffle?: boolean;
}

const SEED = { kind: kinds.integer({ min: 0, max: 2 ** 31 - 1 }), default: 42 };
const CACHES = { why: 'rows are in memory', off: [null, true, false] } as const;
const SHUFFLE_TABLE = new OptionTable<ShuffleOptions>(
  'shuffle()',
  { seed: SEED },
  { others: { generator: 'seed', buffer_size: { why: 'all rows are shuffled' }, keep_in_memory: CACHES } },
);
const SPLIT_TABLE = new OptionTable<SplitOptions>(
  'train_test_split()',
  {
    seed: SEED,
    shuffle: { kind: kinds.boolean, default: true },
    test_size: { kind: kinds.either(kinds.integer({ min: 1 }), kinds.number({ above: 0, below: 1 })), default: 0.25 },
  },
  {
    others: {
      train_size: { why: 'give test_size', off: [null] },
      stratify_by_column: { why: 'rows are dealt out by the order alone', off: [null] },
      keep_in_memory: CACHES,
    },
  },
);

type Change = (example: Example, index: number) => Example;
type Test = (example: Example, index: number) => boolean;

/** What map() makes of a row: its columns, with those that the function gave over them. */
function changed(change: Change, example: Example, index: number): Example {
  const made: unknown = change(example, index);
  if (kinds.isPlain(made)) return { ...example, ...made };
  throw new ArgumentError(`map(): the function gave ${quote(made)} for row ${index}; expected an object of columns.`, {
    index,
    got: made,
  });
}

/** What filter() is told of a row. */
function kept(test: Test, example: Example, index: number): boolean {
  const answer: unknown = test(example, index);
  if (answer instanceof Promise)
    throw new ArgumentError('filter(): the function gave a promise; expected true or false.', { index });
  return Boolean(answer);
}

function checkCall(name: string, call: unknown): void {
  if (typeof call === 'function') return;
  throw new ArgumentError(`${name}() got ${quote(call)}; expected a function of a row.`, { got: call });
}

function checkCount(name: string, n: unknown): void {
  if (kinds.integer({ min: 0 }).ok(n)) return;
  throw new ArgumentError(`${name}() got ${quote(n)}; expected a number of rows.`, { got: n });
}

/** Columns of rows, in the order in which they are first seen. */
function columnsOf(rows: readonly Example[]): string[] {
  const names = new Set<string>();
  for (const row of rows) for (const name of Object.keys(row)) names.add(name);
  return [...names];
}

/**
 * Rows in memory. Trainers take it as it is. Methods give a new one and leave this as it is.
 * @example
 * const dataset = new Dataset([{ quote: 'Brevity is the soul of wit.' }, { quote: 'To be, or not to be.' }, { quote: '' }]);
 * const { train, test } = dataset.filter(({ quote }) => quote !== '').train_test_split({ test_size: 0.5 });
 */
export class Dataset implements Iterable<Example> {
  private columns: readonly string[] | null = null;

  /** @throws ArgumentError unless all rows are objects */
  constructor(private readonly rows: readonly Example[]) {
    if (!Array.isArray(rows)) {
      throw new ArgumentError(`new Dataset() got ${quote(rows)}; expected a list of rows.`, { got: rows });
    }
    const odd = rows.findIndex((row) => typeof row !== 'object' || row === null || Array.isArray(row));
    if (odd >= 0)
      throw new ArgumentError(`new Dataset(): row ${odd} is ${quote(rows[odd])}; expected an object of columns.`, {
        index: odd,
        got: rows[odd],
      });
  }

  /** Rows. */
  get length(): number {
    return this.rows.length;
  }

  /** Rows, by their name in Python. */
  get num_rows(): number {
    return this.rows.length;
  }

  get column_names(): readonly string[] {
    return (this.columns ??= columnsOf(this.rows));
  }

  [Symbol.iterator](): Iterator<Example> {
    return this.rows[Symbol.iterator]();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Example> {
    yield* this.rows;
  }

  /** A row; negative numbers count from the end. @throws ArgumentError where there is none */
  at(index: number): Example {
    const row = this.rows.at(index);
    if (row !== undefined && Number.isInteger(index)) return row;
    throw new ArgumentError(`at(${quote(index)}): the data set has ${this.length} rows.`, { index });
  }

  /** All values of a column. @throws ArgumentError naming those there are */
  column(name: string): unknown[] {
    this.checkColumns([name]);
    return this.rows.map((row) => row[name] ?? null);
  }

  /** The rows themselves. */
  to_list(): readonly Example[] {
    return this.rows;
  }

  /** Rows by their numbers. */
  select(indices: Iterable<number>): Dataset {
    return new Dataset([...indices].map((index) => this.at(index)));
  }

  /** The first rows. */
  take(n: number): Dataset {
    checkCount('take', n);
    return new Dataset(this.rows.slice(0, n));
  }

  /** All rows but the first. */
  skip(n: number): Dataset {
    checkCount('skip', n);
    return new Dataset(this.rows.slice(n));
  }

  /** Each row with the columns that the function gives over its own. */
  map(change: Change): Dataset {
    checkCall('map', change);
    return new Dataset(this.rows.map((row, index) => changed(change, row, index)));
  }

  /** The rows for which the function gives true. */
  filter(test: Test): Dataset {
    checkCall('filter', test);
    return new Dataset(this.rows.filter((row, index) => kept(test, row, index)));
  }

  select_columns(names: string | readonly string[]): Dataset {
    const wanted = this.checkColumns([names].flat());
    return new Dataset(this.rows.map((row) => Object.fromEntries(wanted.map((name) => [name, row[name] ?? null]))));
  }

  remove_columns(names: string | readonly string[]): Dataset {
    const gone = new Set(this.checkColumns([names].flat()));
    return this.select_columns(this.column_names.filter((name) => !gone.has(name)));
  }

  rename_column(from: string, to: string): Dataset {
    this.checkColumns([from]);
    return new Dataset(
      this.rows.map((row) =>
        Object.fromEntries(Object.entries(row).map(([name, v]) => [name === from ? to : name, v])),
      ),
    );
  }

  /** In an order that the seed decides. */
  shuffle(options: ShuffleOptions = {}): Dataset {
    const { seed } = SHUFFLE_TABLE.fill<'seed'>(options);
    return this.select(shuffled(this.length, seed, 0));
  }

  /** @throws ArgumentError where one of the two would be empty */
  train_test_split(options: SplitOptions = {}): { train: Dataset; test: Dataset } {
    const { seed, shuffle, test_size: size } = SPLIT_TABLE.fill<keyof SplitOptions>(options);
    const count = size < 1 ? Math.ceil(this.length * size) : size;
    if (count >= this.length)
      throw new ArgumentError(
        `train_test_split(): test_size is ${size} and the data set has ${this.length} rows; some must be left to train on.`,
        { test_size: size, rows: this.length },
      );
    const rows = shuffle ? this.shuffle({ seed }) : this;
    const train = this.length - count;
    return { train: rows.take(train), test: rows.skip(train) };
  }

  private checkColumns(names: readonly string[]): readonly string[] {
    const none = names.find((name) => !this.column_names.includes(name));
    if (none === undefined) return names;
    throw new ArgumentError(
      `The data set has no column ${quote(none)}; it has ${this.column_names.map((name) => quote(name)).join(', ') || 'none'}.`,
      { column: none, columns: this.column_names },
    );
  }
}

/** Rows as they are read: each pass begins anew, and nothing is kept. Trainers take it as a stream, which needs max_steps. */
export class IterableDataset implements AsyncIterable<Example> {
  /** @param begin begins a pass */
  constructor(private readonly begin: () => AsyncIterable<Example>) {
    checkCall('new IterableDataset', begin);
  }

  [Symbol.asyncIterator](): AsyncIterator<Example> {
    return this.begin()[Symbol.asyncIterator]();
  }

  /** The first rows. */
  take(n: number): IterableDataset {
    checkCount('take', n);
    return this.through(async function* (rows) {
      if (n === 0) return;
      let count = 0;
      for await (const row of rows) {
        yield row;
        if (++count === n) return;
      }
    });
  }

  /** All rows but the first. */
  skip(n: number): IterableDataset {
    checkCount('skip', n);
    return this.through(async function* (rows) {
      let count = 0;
      for await (const row of rows) if (count++ >= n) yield row;
    });
  }

  /** Each row with the columns that the function gives over its own. */
  map(change: Change): IterableDataset {
    checkCall('map', change);
    return this.through(async function* (rows) {
      let index = 0;
      for await (const row of rows) yield changed(change, row, index++);
    });
  }

  /** The rows for which the function gives true. */
  filter(test: Test): IterableDataset {
    checkCall('filter', test);
    return this.through(async function* (rows) {
      let index = 0;
      for await (const row of rows) if (kept(test, row, index++)) yield row;
    });
  }

  private through(pass: (rows: AsyncIterable<Example>) => AsyncIterable<Example>): IterableDataset {
    return new IterableDataset(() => pass(this.begin()));
  }
}
