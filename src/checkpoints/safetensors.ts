/**
 * Reading safetensors (huggingface/safetensors, format of version 0.4 on): 8 bytes of header length, a JSON header, then
 * the tensors' bytes without gaps or overlaps. The header is checked whole before a tensor is read, and nothing is
 * allocated on a number that the file's own size does not cover.
 */
import type { HeldBytes } from '../base/blocks.js';
import { CheckpointError } from '../base/errors.js';
import { DTYPE_BYTES, elementCount, isStoredDtype } from '../base/stored_dtypes.js';
import { RandomAccessFile, type ByteSource } from '../base/files.js';
import type { StoredDtype } from './source.js';
import { plain, quote } from '../base/quote.js';

/** Headers are some hundred bytes per tensor; safetensors itself allows four times as much. */
const MAX_HEADER_BYTES = 25_000_000;

/** A tensor of a safetensors file; `begin` and `end` are offsets in the file. */
export interface SafetensorsEntry {
  readonly dtype: StoredDtype;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

/** Header of a safetensors file. */
export interface SafetensorsHeader {
  readonly metadata: Readonly<Record<string, string>>;
  readonly entries: ReadonlyMap<string, SafetensorsEntry>;
}

/** Number of keys at the top level of a JSON object, repeated ones counted each time (JSON.parse keeps the last only). */
function countTopLevelKeys(text: string): number {
  let depth = 0;
  let colons = 0;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c === 34) {
      for (i++; i < text.length && text.charCodeAt(i) !== 34; i++) if (text.charCodeAt(i) === 92) i++;
    } else if (c === 123 || c === 91) depth++;
    else if (c === 125 || c === 93) depth--;
    else if (c === 58 && depth === 1) colons++;
  }
  return colons;
}

/**
 * Checks and reads a header.
 * @param json the header's bytes (without the length)
 * @param dataStart offset in the file at which the tensors' bytes begin
 * @param fileSize size of the file
 * @param file path, for messages
 * @throws CheckpointError when anything is off, naming file and tensor
 */
export function parseSafetensorsHeader(
  json: Uint8Array,
  dataStart: number,
  fileSize: number,
  file: string,
): SafetensorsHeader {
  let text: string;
  let raw: unknown;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(json);
    raw = JSON.parse(text);
  } catch (error) {
    throw new CheckpointError(
      `${file}: the safetensors header is not valid JSON. The file is damaged; fetch it again.`,
      {
        file,
      },
      { cause: error },
    );
  }
  if (typeof raw !== 'object' || raw === null || Array.isArray(raw))
    throw new CheckpointError(`${file}: the safetensors header is not a JSON object.`, { file });
  const keys = Object.keys(raw);
  if (countTopLevelKeys(text) !== keys.length)
    throw new CheckpointError(`${file}: the safetensors header names a tensor twice.`, { file });
  const dataBytes = fileSize - dataStart;
  let metadata: Record<string, string> = {};
  const found: [string, SafetensorsEntry][] = [];
  for (const name of keys) {
    const value: unknown = (raw as Record<string, unknown>)[name];
    if (name === '__metadata__') metadata = parseMetadata(value, file);
    else found.push([name, parseEntry(name, value, dataStart, dataBytes, file)]);
  }
  checkContiguous(found, dataStart, fileSize, file);
  return { metadata, entries: new Map(found) };
}

function parseMetadata(value: unknown, file: string): Record<string, string> {
  if (typeof value !== 'object' || value === null || Object.values(value).some((v) => typeof v !== 'string'))
    throw new CheckpointError(`${file}: __metadata__ in the safetensors header must map strings to strings.`, { file });
  return value as Record<string, string>;
}

function parseEntry(
  name: string,
  value: unknown,
  dataStart: number,
  dataBytes: number,
  file: string,
): SafetensorsEntry {
  const fail = (what: string, data: Record<string, unknown> = {}): never => {
    throw new CheckpointError(`${file}: tensor ${plain(name)}: ${what}`, { file, tensor: name, ...data });
  };
  if (typeof value !== 'object' || value === null) fail('its header entry is not an object.');
  const { dtype, shape, data_offsets: offsets } = value as Record<string, unknown>;
  if (!isStoredDtype(dtype))
    return fail(`dtype ${quote(dtype)} is not supported; expected one of ${Object.keys(DTYPE_BYTES).join(', ')}.`, {
      got: dtype,
    });
  if (!Array.isArray(shape) || shape.length > 32)
    return fail(`shape ${quote(shape)} is not a list of sizes.`, { got: shape });
  const count = elementCount(shape);
  if (count === null)
    return fail(`shape ${quote(shape)} is not a list of whole numbers whose product fits a file.`, {
      got: shape,
    });
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every((o) => Number.isSafeInteger(o)))
    return fail(`data_offsets ${quote(offsets)} is not a pair of whole numbers.`, { got: offsets });
  const [begin, end] = offsets as [number, number];
  if (begin < 0 || end < begin) return fail(`data_offsets [${begin}, ${end}] is not a range.`, { got: offsets });
  if (end > dataBytes)
    return fail(
      `data_offsets [${begin}, ${end}] lies past the end of the file, which has ${dataBytes} bytes of data. ${'It is cut off or damaged; fetch it again.'}`,
      { got: offsets, available: dataBytes },
    );
  const bytes = count * DTYPE_BYTES[dtype];
  if (end - begin !== bytes)
    return fail(
      `data_offsets [${begin}, ${end}] hold ${end - begin} bytes, but shape [${shape.join(', ')}] of ${dtype} takes ${bytes}.`,
      { got: end - begin, expected: bytes },
    );
  return { dtype, shape: shape as number[], begin: dataStart + begin, end: dataStart + end };
}

/** The tensors must cover the data exactly: a gap or an overlap means that some offset is wrong. */
function checkContiguous(found: [string, SafetensorsEntry][], dataStart: number, fileSize: number, file: string): void {
  const ordered = [...found].sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end);
  let at = dataStart;
  for (const [name, entry] of ordered) {
    if (entry.begin !== at)
      throw new CheckpointError(
        `${file}: tensor ${plain(name)}: its data ${entry.begin < at ? 'overlaps the tensor before it' : 'leaves a gap before it'}` +
          ` (begins at byte ${entry.begin}, expected ${at}).`,
        { file, tensor: name, got: entry.begin, expected: at },
      );
    at = entry.end;
  }
  if (at !== fileSize)
    throw new CheckpointError(`${file}: ${fileSize - at} bytes after the last tensor belong to no tensor.`, {
      file,
      got: fileSize,
      expected: at,
    });
}

/** A safetensors file open for reading. Close it when done. */
export class SafetensorsFile {
  private constructor(
    private readonly file: ByteSource,
    private readonly header: SafetensorsHeader,
  ) {}

  /**
   * Opens a file and checks its header.
   * @throws CheckpointError naming file and tensor
   * @example const file = await SafetensorsFile.open('model.safetensors'); [...file.entries.keys()]
   */
  static async open(path: string): Promise<SafetensorsFile> {
    return SafetensorsFile.from(await RandomAccessFile.open(path));
  }

  /** As open(), on bytes that are open already; they are closed with the file, and on failure. */
  static async from(file: ByteSource): Promise<SafetensorsFile> {
    const { path } = file;
    try {
      if (file.size < 8)
        throw new CheckpointError(
          `${path} has ${file.size} bytes; a safetensors file begins with an 8-byte header length. Fetch it again.`,
          { file: path, size: file.size },
        );
      const start = await file.read(0, 8);
      const length = new DataView(start.buffer).getBigUint64(0, true);
      if (length > BigInt(MAX_HEADER_BYTES) || length > BigInt(file.size - 8))
        throw new CheckpointError(
          `${path}: its safetensors header would have ${length} bytes; the file has ${file.size - 8} more, and at most ${MAX_HEADER_BYTES} are allowed. It is cut off, damaged, or no safetensors file.`,
          { file: path, got: String(length), available: file.size - 8, limit: MAX_HEADER_BYTES },
        );
      const json = await file.read(8, Number(length));
      return new SafetensorsFile(file, parseSafetensorsHeader(json, 8 + Number(length), file.size, path));
    } catch (error) {
      if (error instanceof CheckpointError) await file.discard?.();
      await file.close();
      throw error;
    }
  }

  get path(): string {
    return this.file.path;
  }
  get size(): number {
    return this.file.size;
  }
  get metadata(): Readonly<Record<string, string>> {
    return this.header.metadata;
  }
  get entries(): ReadonlyMap<string, SafetensorsEntry> {
    return this.header.entries;
  }

  /** The stored bytes of a tensor, freshly allocated. */
  async read(name: string): Promise<Uint8Array> {
    const { begin, end } = this.entry(name);
    return this.file.read(begin, end - begin);
  }
  /** The same, held by the runtime; null where it does not hold such. */
  async readHeld(name: string): Promise<HeldBytes | null> {
    const { begin, end } = this.entry(name);
    return (await this.file.readHeld?.(begin, end - begin)) ?? null;
  }
  /** As read(), blocking. */
  readSync(name: string): Uint8Array {
    const { begin, end } = this.entry(name);
    return this.file.readSync(begin, end - begin);
  }
  /** Has a tensor ready for one readSync(): in a browser, where files have to be waited for. */
  async hold(name: string): Promise<void> {
    const { begin, end } = this.entry(name);
    await this.file.hold?.(begin, end - begin);
  }
  /** The stored bytes of a tensor in pieces of at most `maxBytes`, a multiple of 8. */
  async *slices(name: string, maxBytes: number): AsyncGenerator<Uint8Array> {
    const { begin, end } = this.entry(name);
    for (let at = begin; at < end; at += maxBytes) yield await this.file.read(at, Math.min(maxBytes, end - at));
  }
  close(): Promise<void> {
    return this.file.close();
  }

  private entry(name: string): SafetensorsEntry {
    const entry = this.header.entries.get(name);
    if (!entry)
      throw new CheckpointError(`${this.path} holds no tensor ${plain(name)}.`, { file: this.path, tensor: name });
    return entry;
  }
}
