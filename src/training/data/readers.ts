/** Training examples from files: JSONL, JSON, plain text and parquet, streamed. */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { ArgumentError } from '../../base/errors.js';
import { parseJson, readLines, readTextFile } from '../../base/text_files.js';

/** One example as a file has it. */
export type Example = Readonly<Record<string, unknown>>;

export interface ReadOptions {
  /** Text files: an example per line (default), per paragraph (blank lines between), or the whole file. */
  sample_by?: 'line' | 'paragraph' | 'document';
}

async function* readJsonl(file: string): AsyncGenerator<Example> {
  for await (const [line, number] of readLines(file, ArgumentError)) {
    if (line.trim() === '') continue;
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch (error) {
      throw new ArgumentError(
        `${file}, line ${number}: not JSON (${(error as Error).message})`,
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
async function readJson(file: string): Promise<Example[]> {
  const text = await readTextFile(file, ArgumentError);
  const first = text.trimStart();
  const byLine = first.startsWith('{') && isJson(first.slice(0, (first.indexOf('\n') + 1 || first.length + 1) - 1));
  if (byLine) {
    const examples: Example[] = [];
    for await (const example of readJsonl(file)) examples.push(example);
    return examples;
  }
  const value = parseJson(text, file, ArgumentError);
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

async function* readParquet(file: string): AsyncGenerator<Example> {
  const [{ asyncBufferFromFile }, { parquetMetadataAsync, parquetReadObjects }, { compressors }] = await Promise.all([
    import('hyparquet/src/node.js'),
    import('hyparquet'),
    import('hyparquet-compressors'),
  ]);
  const buffer = await asyncBufferFromFile(file);
  const metadata = await parquetMetadataAsync(buffer);
  let start = 0;
  for (const group of metadata.row_groups) {
    const end = start + Number(group.num_rows);
    yield* (await parquetReadObjects({
      file: buffer,
      metadata,
      compressors,
      rowStart: start,
      rowEnd: end,
    })) as Example[];
    start = end;
  }
}

/**
 * The examples of a file, one after the other; nothing is kept.
 *
 * @param file .jsonl or .ndjson, .json (a list of objects), .txt, .parquet
 * @throws ArgumentError for another kind of file, or naming the line that is wrong
 * @example for await (const example of readExamples('train.jsonl')) console.log(example.text);
 */
export async function* readExamples(file: string, options: ReadOptions = {}): AsyncGenerator<Example> {
  if (!fs.existsSync(file)) throw new ArgumentError(`There is no file ${file}`, { file });
  const kind = path.extname(file).toLowerCase();
  if (kind === '.jsonl' || kind === '.ndjson') yield* readJsonl(file);
  else if (kind === '.txt' || kind === '.text') yield* readText(file, options.sample_by ?? 'line');
  else if (kind === '.parquet') yield* readParquet(file);
  else if (kind === '.json') {
    yield* await readJson(file);
  } else
    throw new ArgumentError(`${file}: kind '${kind}' is not known; expected .jsonl, .json, .txt or .parquet`, { file });
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
