/**
 * Files of text, read one way: what they hold must be UTF-8, or UTF-16 with its byte-order mark, in a regular file of a bounded
 * size. Anything else is an error that names the file, never text full of replacement characters.
 */
import * as fs from 'node:fs';
import type { ErrorClass } from './errors.js';
import { plain } from './quote.js';
import { openRegular, type OpenFile, readBytes, refuseChanged, unreadable } from './regular_file.js';

/** Largest text that is read whole, in bytes: V8 holds no longer strings. */
const MOST_BYTES = 512 * 1024 * 1024;

type Encoding = 'utf-8' | 'utf-16le' | 'utf-16be';

/** Encoding and length of a byte-order mark. @throws the class given for UTF-32, and for UTF-16 without a mark */
function markOf(bytes: Uint8Array, file: string, Failure: ErrorClass): { encoding: Encoding; mark: number } {
  const [a, b, c, d] = bytes;
  if (a === 0xef && b === 0xbb && c === 0xbf) return { encoding: 'utf-8', mark: 3 };
  const wide = (a === 0xff && b === 0xfe && c === 0 && d === 0) || (a === 0 && b === 0 && c === 0xfe && d === 0xff);
  if (wide) throw new Failure(`${file} is UTF-32; expected text in UTF-8. ${CONVERT}`, { file, encoding: 'utf-32' });
  if (a === 0xff && b === 0xfe) return { encoding: 'utf-16le', mark: 2 };
  if (a === 0xfe && b === 0xff) return { encoding: 'utf-16be', mark: 2 };
  // text in UTF-16 without a mark: half of its bytes are zero, of which UTF-8 has none
  const zeros = bytes.subarray(0, 4096).reduce((count, byte) => count + Number(byte === 0), 0);
  if (zeros * 4 > Math.min(bytes.length, 4096))
    throw new Failure(`${file} holds no text in UTF-8: a quarter of its bytes are zero. ${CONVERT}`, { file });
  return { encoding: 'utf-8', mark: 0 };
}

const CONVERT = 'Save it as UTF-8 (iconv -f UTF-16 -t UTF-8 FILE, or the encoding that it has), then try again.';

/** Where bytes stop being UTF-8: the first byte of the character that is wrong. */
function firstWrong(bytes: Uint8Array): number {
  const fine = (end: number, stream: boolean): boolean => {
    try {
      new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(0, end), { stream });
      return true;
    } catch {
      return false;
    }
  };
  let [good, bad] = [0, bytes.length + 1];
  while (bad - good > 1) {
    const middle = (good + bad) >> 1;
    if (fine(middle, true)) good = middle;
    else bad = middle;
  }
  // what is left of a character that has begun
  while (!fine(good, false)) good--;
  return good;
}

/**
 * The text of bytes, without a byte-order mark.
 * @param file for messages
 * @throws Failure for what is neither UTF-8 nor UTF-16 with a mark, naming the first byte that is wrong
 */
export function decodeText(bytes: Uint8Array, file: string, Failure: ErrorClass): string {
  const { encoding, mark } = markOf(bytes, file, Failure);
  try {
    return new TextDecoder(encoding, { fatal: true, ignoreBOM: true }).decode(bytes.subarray(mark));
  } catch (cause) {
    const at = encoding === 'utf-8' ? firstWrong(bytes) : 0;
    const where = encoding === 'utf-8' ? ` at byte ${at} (0x${bytes[at]!.toString(16)})` : '';
    throw new Failure(`${file} is not valid ${encoding.toUpperCase()}${where}. ${CONVERT}`, { file, at }, { cause });
  }
}

/**
 * A file's text, without a byte-order mark.
 * @param most largest size in bytes. Default 512 MiB
 * @throws Failure when it cannot be read, is no regular file, is too large, or holds no UTF-8 or UTF-16 text
 * @example
 * const text = await readTextFile('README.md', ArgumentError);
 */
export async function readTextFile(file: string, Failure: ErrorClass, most = MOST_BYTES): Promise<string> {
  return decodeText(await readBytes(file, Failure, most), file, Failure);
}

/** As readTextFile; null where there is no such file. */
export async function readTextFileIfThere(file: string, Failure: ErrorClass, most?: number): Promise<string | null> {
  const there = await fs.promises.stat(file).then(
    () => true,
    (error: NodeJS.ErrnoException) => error.code !== 'ENOENT' && error.code !== 'ENOTDIR',
  );
  return there ? readTextFile(file, Failure, most) : null;
}

/** Deepest nesting of lists and objects in a file: what is deeper can be read, and neither written again nor shown. */
const MOST_LEVELS = 500;

/** Whether lists and objects lie in each other deeper than so many levels. */
function isDeep(value: unknown, most: number): boolean {
  let level = [value];
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > most) return true;
    const next: unknown[] = [];
    for (const each of level) {
      if (typeof each !== 'object' || each === null) continue;
      for (const inner of Array.isArray(each) ? each : Object.values(each))
        if (typeof inner === 'object' && inner !== null) next.push(inner);
    }
    level = next;
  }
  return false;
}

/** The value of a text in JSON. @throws Failure naming the file and the place */
export function parseJson(text: string, file: string, Failure: ErrorClass): unknown {
  let value: unknown;
  try {
    value = JSON.parse(text) as unknown;
  } catch (cause) {
    const message = (cause as Error).message;
    const at = /position (\d+)/.exec(message)?.[1];
    const line = at === undefined ? undefined : text.slice(0, Number(at)).split('\n').length;
    throw new Failure(
      `${file}${line === undefined ? '' : `, line ${line}`}: not valid JSON (${plain(message, 200)}).`,
      { file, line },
      { cause },
    );
  }
  if (isDeep(value, MOST_LEVELS))
    throw new Failure(`${file}: lists and objects lie in each other deeper than ${MOST_LEVELS} levels.`, { file });
  return value;
}

/** As readTextFile and parseJson. */
export async function readJsonFile(file: string, Failure: ErrorClass, most?: number): Promise<unknown> {
  return parseJson(await readTextFile(file, Failure, most), file, Failure);
}

/**
 * A file's text in pieces, as they come. Nothing but a piece is held.
 * @throws Failure as readTextFile
 */
export async function* readPieces(file: string, Failure: ErrorClass): AsyncGenerator<string> {
  const open = await openRegular(file, Failure);
  try {
    yield* decodedPieces(open, file, Failure);
  } catch (error) {
    throw unreadable(file, error, Failure);
  } finally {
    await open.handle.close();
  }
}

/**
 * The lines of a file, one after the other, with their numbers from 1. Nothing but a line is held.
 * @throws Failure as readTextFile
 */
export async function* readLines(file: string, Failure: ErrorClass): AsyncGenerator<[line: string, number: number]> {
  let number = 0;
  let rest = '';
  for await (const text of readPieces(file, Failure)) {
    const lines = (rest + text).split('\n');
    rest = lines.pop()!;
    for (const line of lines) yield [line.endsWith('\r') ? line.slice(0, -1) : line, ++number];
  }
  if (rest !== '') yield [rest.endsWith('\r') ? rest.slice(0, -1) : rest, number + 1];
}

/** Most bytes that are read at a time. */
const PIECE = 2 ** 18;

async function* decodedPieces(open: OpenFile, file: string, Failure: ErrorClass): AsyncGenerator<string> {
  // One block for all pieces, of which text is made at once. Its size is that of a small file: the collector of garbage counts blocks, and
  // with one of 256 KB for a file of some lines it comes every fifty files.
  const block = new Uint8Array(Math.min(PIECE, Math.max(4096, open.size)));
  let decoder: TextDecoder | null = null;
  for (let done = 0; ;) {
    const { bytesRead } = await open.handle.read(block, 0, block.length, done);
    if (bytesRead === 0) {
      await refuseChanged(open, file, Failure);
      if (decoder) yield decode(decoder, null, file, done, Failure);
      return;
    }
    let bytes = block.subarray(0, bytesRead);
    if (!decoder) {
      const { encoding, mark } = markOf(bytes, file, Failure);
      decoder = new TextDecoder(encoding, { fatal: true, ignoreBOM: true });
      bytes = bytes.subarray(mark);
    }
    yield decode(decoder, bytes, file, done, Failure);
    done += bytesRead;
  }
}

/** @param bytes the next of the file; null at its end */
function decode(
  decoder: TextDecoder,
  bytes: Uint8Array | null,
  file: string,
  done: number,
  Failure: ErrorClass,
): string {
  try {
    return bytes ? decoder.decode(bytes, { stream: true }) : decoder.decode();
  } catch (cause) {
    const at = done + (bytes ? firstWrong(bytes) : 0);
    const what = decoder.encoding.toUpperCase();
    throw new Failure(`${file} is not valid ${what} near byte ${at}. ${CONVERT}`, { file, at }, { cause });
  }
}
