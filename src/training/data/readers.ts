/** Training examples from files: JSONL, JSON, plain text and parquet, streamed. */
import * as fs from 'node:fs';
import * as path from 'node:path';
import * as readline from 'node:readline';
import { ArgumentError } from '../../base/errors.js';

/** One example as a file has it. */
export type Example = Readonly<Record<string, unknown>>;

export interface ReadOptions {
  /** Text files: an example per line (default), per paragraph (blank lines between), or the whole file. */
  sample_by?: 'line' | 'paragraph' | 'document';
}

async function* lines(file: string): AsyncGenerator<[string, number]> {
  const stream = fs.createReadStream(file, 'utf8');
  try {
    let number = 0;
    for await (const line of readline.createInterface({ input: stream, crlfDelay: Infinity })) yield [line, ++number];
  } finally {
    stream.destroy();
  }
}

async function* readJsonl(file: string): AsyncGenerator<Example> {
  for await (const [raw, number] of lines(file)) {
    const line = number === 1 ? raw.replace(/^\uFEFF/, '') : raw;
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

async function* readText(file: string, by: 'line' | 'paragraph' | 'document'): AsyncGenerator<Example> {
  if (by === 'document') {
    yield { text: await fs.promises.readFile(file, 'utf8') };
    return;
  }
  let paragraph: string[] = [];
  for await (const [line] of lines(file)) {
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
    const value: unknown = JSON.parse(await fs.promises.readFile(file, 'utf8'));
    if (!Array.isArray(value))
      throw new ArgumentError(
        `${file}: expected a JSON list of examples; one object per line goes into a .jsonl file`,
        { file },
      );
    yield* value as Example[];
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
