/** Training examples from files: JSONL, JSON, CSV, plain text and parquet, streamed. */
import * as path from 'node:path';
import { ArgumentError } from '../../base/errors.js';
import * as kinds from '../../base/option_kinds.js';
import { type OptionRules, OptionTable } from '../../base/options.js';
import { plain, quote } from '../../base/quote.js';
import { isThere } from '../../base/regular_file.js';
import { parseJson, readLines, readTextFile } from '../../base/text_files.js';
import { readCsv } from './csv.js';
import { readParquet } from './parquet.js';

/** One example as a file has it. */
export type Example = Readonly<Record<string, unknown>>;

export interface ReadOptions {
  /** Text files: an example per line (default), per paragraph (blank lines between), or the whole file. */
  sample_by?: 'line' | 'paragraph' | 'document';
  /** .json files: the key of the list, where it lies in an object. Default null: the file is the list. */
  field?: string | null;
  /** .csv files: the character between values. Default ',', and a tab in .tsv files. */
  delimiter?: string | null;
}

/** Rules of ReadOptions. */
export const READ_RULES: OptionRules<ReadOptions> = {
  sample_by: { kind: kinds.oneOf('line', 'paragraph', 'document'), default: 'line' },
  field: { kind: kinds.orNull(kinds.text), default: null },
  delimiter: {
    kind: kinds.orNull(kinds.named('one character', (v) => typeof v === 'string' && /^[^"\r\n]$/u.test(v))),
  },
};

/** Names that others give to them. */
export const READ_OTHERS = { sep: 'delimiter' } as const;

const READ_TABLE = new OptionTable<ReadOptions>('readExamples()', READ_RULES, { others: READ_OTHERS });

async function* readJsonl(file: string): AsyncGenerator<Example> {
  for await (const [line, number] of readLines(file, ArgumentError)) {
    if (line.trim() === '') continue;
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch (error) {
      throw new ArgumentError(
        `${file}, line ${number}: not JSON (${plain((error as Error).message, 200)})`,
        { file, line: number },
        { cause: error },
      );
    }
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw new ArgumentError(`${file}, line ${number}: expected a JSON object such as {"text": "…"}`, {
        file,
        line: number,
      });
    }
    yield value as Example;
  }
}

/** A list of objects; one object a line, which some data sets name .json as well, is read as such. */
async function readJson(file: string, field?: string): Promise<Example[]> {
  const text = await readTextFile(file, ArgumentError);
  const first = text.trimStart();
  const byLine =
    field === undefined &&
    first.startsWith('{') &&
    isJson(first.slice(0, (first.indexOf('\n') + 1 || first.length + 1) - 1));
  if (byLine) {
    const examples: Example[] = [];
    for await (const example of readJsonl(file)) examples.push(example);
    return examples;
  }
  const whole = parseJson(text, file, ArgumentError);
  const value = field === undefined ? whole : listIn(whole, field, file);
  if (!Array.isArray(value))
    throw new ArgumentError(
      `${file}: expected a JSON list of examples, or one object a line, got one ${value === null ? 'null' : typeof value}`,
      { file },
    );
  value.forEach((example, i) => {
    if (typeof example !== 'object' || example === null || Array.isArray(example))
      throw new ArgumentError(`${file}: example ${i} of the list is no object such as {"text": "…"}`, {
        file,
        index: i,
      });
  });
  return value as Example[];
}

/** What lies under a key of an object. */
function listIn(value: unknown, field: string, file: string): unknown {
  const fields = kinds.isPlain(value) ? value : {};
  if (Object.hasOwn(fields, field)) return fields[field];
  throw new ArgumentError(`${file} has no ${quote(field)}; it has ${Object.keys(fields).map((k) => quote(k)).join(', ') || 'no keys'}.`, { file, field }); // prettier-ignore
}

function isJson(line: string): boolean {
  try {
    JSON.parse(line);
    return true;
  } catch {
    return false;
  }
}

async function* readText(file: string, by: 'line' | 'paragraph' | 'document'): AsyncGenerator<Example> {
  if (by === 'document') {
    yield { text: await readTextFile(file, ArgumentError) };
    return;
  }
  let paragraph: string[] = [];
  for await (const [line] of readLines(file, ArgumentError)) {
    if (by === 'line') {
      if (line.trim() !== '') yield { text: line };
    } else if (line.trim() !== '') paragraph.push(line);
    else if (paragraph.length > 0) {
      yield { text: paragraph.join('\n') };
      paragraph = [];
    }
  }
  if (paragraph.length > 0) yield { text: paragraph.join('\n') };
}

/** Kinds of files that hold examples. */
export type FileKind = 'json' | 'jsonl' | 'csv' | 'text' | 'parquet';

const KINDS: Readonly<Record<string, FileKind>> = {
  '.json': 'json',
  '.jsonl': 'jsonl',
  '.ndjson': 'jsonl',
  '.csv': 'csv',
  '.tsv': 'csv',
  '.txt': 'text',
  '.text': 'text',
  '.parquet': 'parquet',
};

/** Names of files that are read, for messages. */
export const READ_NAMES = '.jsonl, .json, .csv, .txt or .parquet';

/** The kind of a file by its name; null for what is none. */
export function fileKind(file: string): FileKind | null {
  return KINDS[path.extname(file).toLowerCase()] ?? null;
}

/** Which files an option is for. */
const ONLY: Readonly<Record<keyof ReadOptions, FileKind>> = { sample_by: 'text', field: 'json', delimiter: 'csv' };

/** @throws ArgumentError for an option that changes nothing */
function refuseIdle(kind: FileKind, file: string, options: ReadOptions): void {
  for (const [name, of] of Object.entries(ONLY) as [keyof ReadOptions, FileKind][]) {
    const value = options[name] ?? null;
    if (of === kind || value === null || value === READ_RULES[name].default) continue;
    throw new ArgumentError(
      `${name} is ${quote(value)}, which changes nothing in how ${file} is read: it is for files of ${of === 'text' ? 'text' : `.${of}`}. Leave it away.`,
      { option: name, got: value, file },
    );
  }
}

const delimiterOf = (file: string): string => (file.toLowerCase().endsWith('.tsv') ? '\t' : ',');

/** The examples of a file that is of a kind, whatever its name. */
export async function* readAs(kind: FileKind, file: string, options: ReadOptions = {}): AsyncGenerator<Example> {
  if (!(await isThere(file))) throw new ArgumentError(`There is no file ${file}`, { file });
  refuseIdle(kind, file, options);
  if (kind === 'jsonl') yield* readJsonl(file);
  else if (kind === 'text') yield* readText(file, options.sample_by ?? 'line');
  else if (kind === 'parquet') yield* readParquet(file);
  else if (kind === 'csv') yield* readCsv(file, { delimiter: options.delimiter ?? delimiterOf(file) });
  else yield* await readJson(file, options.field ?? undefined);
}

/**
 * The examples of a file, one after the other; nothing is kept.
 *
 * @param file .jsonl or .ndjson, .json (a list of objects), .csv (names of columns in its first line) or .tsv, .txt, .parquet
 * @throws ArgumentError for another kind of file, or naming the line that is wrong
 * @example for await (const example of readExamples('train.jsonl')) console.log(example.text);
 */
export async function* readExamples(file: string, options: ReadOptions = {}): AsyncGenerator<Example> {
  READ_TABLE.check(options);
  const kind = fileKind(file);
  if (kind === null && (await isThere(file)))
    throw new ArgumentError(
      `${file}: kind '${path.extname(file).toLowerCase()}' is not known; expected ${READ_NAMES}`,
      { file },
    );
  yield* readAs(kind ?? 'json', file, options);
}

/** All examples of a file in a list. */
export async function loadExamples(file: string, options: ReadOptions = {}): Promise<Example[]> {
  const all: Example[] = [];
  for await (const example of readExamples(file, options)) all.push(example);
  return all;
}

/** Splits a list, shuffled with a seed: `share` of it (at least one example) for evaluation. */
export function splitExamples<T>(
  examples: readonly T[],
  share: number,
  order: readonly number[],
): { train: T[]; test: T[] } {
  const count = Math.min(examples.length - 1, Math.max(1, Math.round(examples.length * share)));
  const test = new Set(order.slice(0, count));
  return { train: examples.filter((_, i) => !test.has(i)), test: examples.filter((_, i) => test.has(i)) };
}
