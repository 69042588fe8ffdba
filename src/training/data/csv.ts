/**
 * Rows of CSV files, by csv-parse. What is a number, a truth or missing is judged as Python's datasets does, which asks pandas: by the whole
 * of a column, over its first rows.
 */
import { pipeline, Readable } from 'node:stream';
import { ArgumentError, Mamba2Error } from '../../base/errors.js';
import { plain, quote } from '../../base/quote.js';
import { readPieces } from '../../base/text_files.js';
import type { Example } from './readers.js';

/** Rows by which a column's kind is judged, as many as Python's datasets reads at a time. */
const FIRST_ROWS = 10_000;
/** Most characters of a row: a quote that is never closed reads on to the end of the file. */
const MOST_OF_ROW = 2 ** 26;

/** What pandas takes for a missing value, quoted or not. */
const MISSING = new Set(
  '#N/A|#N/A N/A|#NA|-1.#IND|-1.#QNAN|-NaN|-nan|1.#IND|1.#QNAN|<NA>|N/A|NA|NULL|NaN|None|n/a|nan|null|'.split('|'),
);
const TRUTHS: ReadonlyMap<string, boolean> = new Map([
  ...['True', 'TRUE', 'true'].map((text) => [text, true] as const),
  ...['False', 'FALSE', 'false'].map((text) => [text, false] as const),
]);
const WHOLE = /^\s*[+-]?\d+\s*$/;
const NUMBER = /^\s*[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|inf|infinity)\s*$/i;

/** A column's kind: what all of its values can be read as. */
interface ColumnKind {
  readonly name: string;
  readonly is: (text: string) => boolean;
  readonly read: (text: string) => unknown;
}

/** A text of WHOLE as it is. */
const wholeOf = (text: string): bigint => BigInt(text.trim().replace('+', ''));

/** A whole number: one of 64 bits that no number holds exactly is a BigInt, as from Parquet. */
function readWhole(text: string): number | bigint {
  const value = Number(text);
  return Number.isSafeInteger(value) ? value : wholeOf(text);
}

function readNumber(text: string): number {
  const word = /^\s*([+-]?)inf/i.exec(text);
  return word ? (word[1] === '-' ? -Infinity : Infinity) : Number(text);
}

/** Whether a whole number has 64 bits, with a sign or without. */
function fits(text: string): boolean {
  const value = wholeOf(text);
  return value >= -(2n ** 63n) && value < 2n ** 64n;
}

const KINDS: readonly ColumnKind[] = [
  { name: 'true or false', is: (text) => TRUTHS.has(text), read: (text) => TRUTHS.get(text) },
  { name: 'a whole number', is: (text) => WHOLE.test(text) && fits(text), read: readWhole },
  { name: 'a number', is: (text) => NUMBER.test(text), read: readNumber },
  { name: 'a text', is: () => true, read: (text) => text },
];

/** One record with its place in the file. */
interface Row {
  record: readonly string[];
  info: { lines: number };
}

export interface CsvOptions {
  /** What stands between values. */
  delimiter: string;
}

/** Names of columns as pandas gives them: a second 'a' is 'a.1', none is 'Unnamed: 0'. */
function columnNames(header: readonly string[]): string[] {
  const names: string[] = [];
  for (const [i, text] of header.entries()) {
    const name = text === '' ? `Unnamed: ${i}` : text;
    let unique = name;
    for (let n = 1; names.includes(unique); n++) unique = `${name}.${n}`;
    names.push(unique);
  }
  return names;
}

const load = () => import('csv-parse');
let library: ReturnType<typeof load> | null = null;

async function* records(file: string, { delimiter }: CsvOptions): AsyncGenerator<Row> {
  const { parse } = await (library ??= load());
  const parser = parse({
    ...{ delimiter, info: true, skip_empty_lines: true, max_record_size: MOST_OF_ROW },
    // a quote within a value that does not begin with one is a quote, and a short row ends in missing values
    ...{ relax_quotes: true, relax_column_count_less: true },
  });
  pipeline(Readable.from(readPieces(file, ArgumentError)), parser, () => undefined);
  try {
    for await (const row of parser) yield row as Row;
  } catch (error) {
    if (error instanceof Mamba2Error) throw error;
    throw new ArgumentError(`${file}: not CSV (${plain((error as Error).message, 200)}).`, { file }, { cause: error });
  }
}

/**
 * The rows of a file whose first line names its columns, one after the other.
 * @throws ArgumentError naming file and line
 */
export async function* readCsv(file: string, options: CsvOptions): AsyncGenerator<Example> {
  let names: string[] | null = null;
  let kinds: ColumnKind[] | null = null;
  let first: Row[] = [];
  const judge = (): ColumnKind[] =>
    names!.map((_, column) => {
      const texts = first.map(({ record }) => record[column] ?? '').filter((text) => !MISSING.has(text));
      const kind = KINDS.find(({ is }) => texts.every(is))!;
      return texts.length === 0 ? KINDS.at(-1)! : kind;
    });
  const exampleOf = ({ record, info: { lines } }: Row): Example => {
    const value = (name: string, column: number): unknown => {
      const [text, kind] = [record[column] ?? '', kinds![column]!];
      if (MISSING.has(text)) return null;
      if (kind.is(text)) return kind.read(text);
      throw new ArgumentError(
        `${file}, line ${lines}: ${quote(name)} is ${quote(text)}; the first ${FIRST_ROWS} rows have ${kind.name} there, and a column is of one kind. Mend the file, or convert it to .jsonl.`,
        { file, line: lines, column: name, got: text },
      );
    };
    return Object.fromEntries(names!.map((name, column) => [name, value(name, column)]));
  };
  for await (const row of records(file, options)) {
    if (!names) {
      names = columnNames(row.record);
      continue;
    }
    if (kinds) yield exampleOf(row);
    else if (first.push(row) === FIRST_ROWS) {
      kinds = judge();
      for (const each of first) yield exampleOf(each);
      first = [];
    }
  }
  if (!names)
    throw new ArgumentError(`${file} is empty; expected a first line with the names of the columns.`, { file });
  kinds ??= judge();
  for (const each of first) yield exampleOf(each);
}
