/**
 * Reading zip archives as torch.save writes them: entries stored without compression, zip64 where a size or an offset
 * needs it. The central directory rules; every range is checked against the file before anything is read.
 */
import * as zlib from 'node:zlib';
import { CheckpointError } from '../base/errors.js';
import type { ByteSource } from '../base/files.js';
import { plain } from '../base/quote.js';

const END = 0x06054b50;
const END64 = 0x06064b50;
const LOCATOR64 = 0x07064b50;
const CENTRAL = 0x02014b50;
const LOCAL = 0x04034b50;
/** torch's directories are a few hundred bytes per tensor */
const MAX_DIRECTORY = 25_000_000;

/** A stored entry; its bytes are [begin, end) of the file. */
export interface ZipEntry {
  readonly name: string;
  readonly begin: number;
  readonly end: number;
  /** CRC-32 of the bytes; null when the writer computed none */
  readonly crc: number | null;
}

/** An entry as the directory has it. */
interface Listed {
  readonly name: string;
  /** in bytes */
  readonly nameLength: number;
  readonly crc: number;
  readonly size: number;
  /** where its own header begins */
  readonly local: number;
}

let crcTable: Uint32Array | null = null;

/** CRC-32 of bytes that follow others with the given CRC (Node has it since 20.15; before, a table does). */
export function crc32(bytes: Uint8Array, before = 0): number {
  if (typeof zlib.crc32 === 'function') return zlib.crc32(bytes, before);
  crcTable ??= Uint32Array.from({ length: 256 }, (_, i) => {
    let c = i;
    for (let k = 0; k < 8; k++) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1;
    return c;
  });
  let c = ~before >>> 0;
  for (const byte of bytes) c = crcTable[(c ^ byte) & 255]! ^ (c >>> 8);
  return ~c >>> 0;
}

function broken(file: string, what: string): CheckpointError {
  return new CheckpointError(`${file}: ${what} The file is cut off or damaged; fetch it again.`, { file });
}

function view(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** A 64-bit number that must be an offset in a file. */
function offset64(data: DataView, at: number): number {
  const value = data.getBigUint64(at, true);
  return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : Infinity;
}

/** Where the central directory is, from the record at the file's end. */
async function findDirectory(file: ByteSource): Promise<{ begin: number; end: number; count: number }> {
  const tailStart = Math.max(0, file.size - 65_557);
  const tail = view(await file.read(tailStart, file.size - tailStart));
  let at = tail.byteLength - 22;
  // the record's comment must reach to the end exactly: the signature could also occur inside a comment
  while (at >= 0 && !(tail.getUint32(at, true) === END && at + 22 + tail.getUint16(at + 20, true) === tail.byteLength))
    at--;
  if (at < 0) throw broken(file.path, 'it is no whole zip archive: the end record is missing.');
  let count = tail.getUint16(at + 10, true);
  let size = tail.getUint32(at + 12, true);
  let begin = tail.getUint32(at + 16, true);
  let limit = tailStart + at;
  if (limit >= 20) {
    const locator = view(await file.read(limit - 20, 20));
    if (locator.getUint32(0, true) === LOCATOR64) {
      const at64 = offset64(locator, 8);
      if (!(at64 + 56 <= limit - 20)) throw broken(file.path, 'the zip64 end record lies outside the file.');
      const end64 = view(await file.read(at64, 56));
      if (end64.getUint32(0, true) !== END64) throw broken(file.path, 'the zip64 end record is missing.');
      count = offset64(end64, 32);
      size = offset64(end64, 40);
      begin = offset64(end64, 48);
      limit = at64;
    }
  }
  if (!(begin + size === limit)) throw broken(file.path, 'the zip directory is not where the end record says.');
  if (size > MAX_DIRECTORY)
    throw new CheckpointError(`${file.path}: a zip directory of ${size} bytes is not that of a checkpoint.`, {
      file: file.path,
      got: size,
      limit: MAX_DIRECTORY,
    });
  if (count * 46 > size) throw broken(file.path, `the zip directory is too small for its ${count} entries.`);
  return { begin, end: begin + size, count };
}

/** Sizes and offset of an entry whose 32-bit fields are full, from its zip64 extra field. */
function zip64Fields(file: string, name: string, extra: DataView, fields: number[]): number[] {
  for (let at = 0; at + 4 <= extra.byteLength;) {
    const [id, length] = [extra.getUint16(at, true), extra.getUint16(at + 2, true)];
    if (id === 1) {
      let next = at + 4;
      return fields.map((value) => {
        if (value !== 0xffffffff) return value;
        if (next + 8 > Math.min(at + 4 + length, extra.byteLength))
          throw broken(file, `entry ${plain(name)}: its zip64 field is too short.`);
        next += 8;
        return offset64(extra, next - 8);
      });
    }
    at += 4 + length;
  }
  if (fields.includes(0xffffffff)) throw broken(file, `entry ${plain(name)}: its zip64 field is missing.`);
  return fields;
}

/**
 * Reads the directory of a zip archive.
 * @returns entries by name
 * @throws CheckpointError when the archive is damaged, or an entry is compressed or encrypted
 */
export async function readZipDirectory(file: ByteSource): Promise<Map<string, ZipEntry>> {
  const directory = await findDirectory(file);
  const bytes = await file.read(directory.begin, directory.end - directory.begin);
  const data = view(bytes);
  const found: Listed[] = [];
  let at = 0;
  for (let i = 0; i < directory.count; i++) {
    if (at + 46 > bytes.byteLength || data.getUint32(at, true) !== CENTRAL)
      throw broken(file.path, `entry ${i} of the zip directory is missing.`);
    const length = (field: number): number => data.getUint16(at + field, true);
    const [nameLength, extraLength, commentLength] = [length(28), length(30), length(32)];
    const next = at + 46 + nameLength + extraLength + commentLength;
    if (next > bytes.byteLength) throw broken(file.path, `entry ${i} of the zip directory is cut off.`);
    const name = new TextDecoder().decode(bytes.subarray(at + 46, at + 46 + nameLength));
    const flags = data.getUint16(at + 8, true);
    const method = data.getUint16(at + 10, true);
    if (method !== 0 || (flags & 1) !== 0)
      throw new CheckpointError(
        `${file.path}: entry ${plain(name)} is ${method !== 0 ? 'compressed' : 'encrypted'}; torch.save stores entries as they are. Save the file again with torch.save.`,
        { file: file.path, entry: name, method },
      );
    const extra = view(bytes.subarray(at + 46 + nameLength, at + 46 + nameLength + extraLength));
    const raw = [24, 20, 42].map((field) => data.getUint32(at + field, true));
    const [size, stored, local] = zip64Fields(file.path, name, extra, raw) as [number, number, number];
    if (size !== stored) throw broken(file.path, `entry ${plain(name)}: its two sizes, ${size} and ${stored}, differ.`);
    found.push({ name, nameLength, crc: data.getUint32(at + 16, true), size, local });
    at = next;
  }
  if (at !== bytes.byteLength) throw broken(file.path, 'the zip directory holds more than its entries.');
  return locate(file, found, directory.begin);
}

/** Follows each entry to its local header, and checks that the entries' bytes lie apart and before the directory. */
async function locate(file: ByteSource, found: readonly Listed[], limit: number): Promise<Map<string, ZipEntry>> {
  // torch can be told to compute no checksums; all are 0 then
  const unchecked = found.every(({ crc }) => crc === 0);
  const entries = new Map<string, ZipEntry>();
  let last = 0;
  for (const { name, nameLength, crc, size, local } of [...found].sort((a, b) => a.local - b.local)) {
    if (entries.has(name)) throw broken(file.path, `entry ${plain(name)} is there twice.`);
    if (!(local >= last && local + 30 <= limit))
      throw broken(file.path, `entry ${plain(name)} lies outside its place.`);
    // with the name behind it: one reading an entry
    const bytes = await file.read(local, Math.min(30 + nameLength, limit - local));
    const header = view(bytes);
    if (header.getUint32(0, true) !== LOCAL) throw broken(file.path, `entry ${plain(name)} has no header of its own.`);
    const ownLength = header.getUint16(26, true);
    const begin = local + 30 + ownLength + header.getUint16(28, true);
    if (!(begin + size <= limit))
      throw broken(file.path, `entry ${plain(name)} (${size} bytes) reaches past the data's end.`);
    if (ownLength !== nameLength || new TextDecoder().decode(bytes.subarray(30)) !== name)
      throw broken(file.path, `entry ${plain(name)} has another name in its own header.`);
    last = begin + size;
    entries.set(name, { name, begin, end: last, crc: unchecked ? null : crc });
  }
  return entries;
}
