/** Writing zip archives as torch does, and broken in chosen ways. */
import { crc32 } from '../../src/checkpoints/zip.js';

export interface ZipOptions {
  /** write sizes and offsets in zip64 fields, and a zip64 end record */
  zip64?: boolean;
  /** compression method written (the bytes stay as they are) */
  method?: number;
  comment?: string;
}

function fields(layout: readonly (readonly [bytes: 2 | 4 | 8, value: number])[]): Buffer {
  const out = Buffer.alloc(layout.reduce((sum, [bytes]) => sum + bytes, 0));
  let at = 0;
  for (const [bytes, value] of layout) {
    if (bytes === 2) out.writeUInt16LE(value, at);
    else if (bytes === 4) out.writeUInt32LE(value, at);
    else out.writeBigUInt64LE(BigInt(value), at);
    at += bytes;
  }
  return out;
}

/** An archive of stored entries. */
export function zipFile(entries: Readonly<Record<string, Uint8Array>>, options: ZipOptions = {}): Uint8Array {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  const method = options.method ?? 0;
  const big = options.zip64 ?? false;
  let at = 0;
  const push = (part: Buffer): void => {
    parts.push(part);
    at += part.length;
  };
  for (const [name, bytes] of Object.entries(entries)) {
    const local = at;
    const utf8 = Buffer.from(name);
    const crc = crc32(bytes);
    const size = big ? 0xffffffff : bytes.length;
    const extra = big ? fields([[2, 1], [2, 24], [8, bytes.length], [8, bytes.length], [8, local]]) : Buffer.alloc(0); // prettier-ignore
    push(fields([[4, 0x04034b50], [2, 20], [2, 0], [2, method], [4, 0], [4, crc], [4, size], [4, size], [2, utf8.length], [2, 0]])); // prettier-ignore
    push(utf8);
    push(Buffer.from(bytes));
    directory.push(
      fields([[4, 0x02014b50], [2, 20], [2, 20], [2, 0], [2, method], [4, 0], [4, crc], [4, size], [4, size], [2, utf8.length], [2, extra.length], [2, 0], [2, 0], [2, 0], [4, 0], [4, big ? 0xffffffff : local]]), // prettier-ignore
      utf8,
      extra,
    );
  }
  const begin = at;
  for (const part of directory) push(part);
  const size = at - begin;
  const count = Object.keys(entries).length;
  if (big) {
    const end64 = at;
    push(fields([[4, 0x06064b50], [8, 44], [2, 20], [2, 20], [4, 0], [4, 0], [8, count], [8, count], [8, size], [8, begin]])); // prettier-ignore
    push(
      fields([
        [4, 0x07064b50],
        [4, 0],
        [8, end64],
        [4, 1],
      ]),
    );
  }
  const comment = Buffer.from(options.comment ?? '');
  push(fields([[4, 0x06054b50], [2, 0], [2, 0], [2, big ? 0xffff : count], [2, big ? 0xffff : count], [4, big ? 0xffffffff : size], [4, big ? 0xffffffff : begin], [2, comment.length]])); // prettier-ignore
  push(comment);
  return new Uint8Array(Buffer.concat(parts));
}
