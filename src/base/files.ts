/** Reading a file by offset. Writing one is in whole_files.ts. */
import * as fs from 'node:fs';
import { type HeldBytes, readBlock, readHeld } from './blocks.js';
import { CheckpointError } from './errors.js';
import { changedError, openRegular, type OpenFile, unreadable } from './regular_file.js';
import { readTextFileIfThere } from './text_files.js';

/** One read call asks for at most this much: the operating system's own limit is 2 GiB. */
const SLICE = 2 ** 30;

/** Bytes that can be read at any offset: a file, or a buffer that stands for one. */
export interface ByteSource {
  readonly path: string;
  readonly size: number;
  /** bytes [offset, offset + length), freshly allocated; nothing is allocated when the range leaves the source */
  read(offset: number, length: number): Promise<Uint8Array>;
  readSync(offset: number, length: number): Uint8Array;
  /** The same bytes held by the runtime; null where it does not hold such. */
  readHeld?(offset: number, length: number): Promise<HeldBytes | null>;
  /** Has these bytes ready for one readSync(), where reading has to be waited for: a browser's files. */
  hold?(offset: number, length: number): Promise<void>;
  /** Its bytes are not what they should be: what a browser keeps of them is forgotten. */
  discard?(): Promise<void>;
  close(): Promise<void>;
}

/** A handle of a file that cannot be read at once unless its bytes were held. */
interface HoldingHandle {
  hold?(offset: number, length: number): Promise<void>;
  discard?(): Promise<void>;
}

function outside(path: string, size: number, offset: number, length: number): CheckpointError {
  return new CheckpointError(`${path} has ${size} bytes; bytes ${offset} to ${offset + length} were asked for.`, {
    file: path,
    size,
    offset,
    length,
  });
}

/** A file's bytes that are in memory already. */
export class BytesInMemory implements ByteSource {
  readonly size: number;
  constructor(
    readonly path: string,
    private readonly bytes: Uint8Array,
  ) {
    this.size = bytes.byteLength;
  }
  read(offset: number, length: number): Promise<Uint8Array> {
    return Promise.resolve().then(() => this.readSync(offset, length));
  }
  readSync(offset: number, length: number): Uint8Array {
    if (!(offset >= 0 && length >= 0 && offset + length <= this.size))
      throw outside(this.path, this.size, offset, length);
    return this.bytes.slice(offset, offset + length);
  }
  close(): Promise<void> {
    return Promise.resolve();
  }
}

/** A regular file open for reading at any offset. One that is written to meanwhile is an error. */
export class RandomAccessFile implements ByteSource {
  private constructor(
    readonly path: string,
    private open: OpenFile | null,
    readonly size: number,
  ) {}

  /** @throws CheckpointError when there is no such file, or it is not a regular one */
  static async open(file: string): Promise<RandomAccessFile> {
    const open = await openRegular(file, CheckpointError);
    return new RandomAccessFile(file, open, open.size);
  }

  /** Bytes [offset, offset + length), freshly allocated. Nothing is allocated when the range leaves the file. */
  async read(offset: number, length: number): Promise<Uint8Array> {
    const block = await this.readBy(readBlock, offset, length);
    if (block) return block;
    const { handle, modified } = this.check(offset, length);
    const out = new Uint8Array(length);
    for (let done = 0; done < length;) {
      const { bytesRead } = await handle.read(out, done, Math.min(SLICE, length - done), offset + done);
      if (bytesRead === 0) throw this.shrunk(offset + done);
      done += bytesRead;
    }
    this.refuseChanged(await handle.stat(), modified);
    return out;
  }

  readHeld(offset: number, length: number): Promise<HeldBytes | null> {
    return this.readBy(readHeld, offset, length);
  }

  /** Reads by several threads; null where `read` does. */
  private async readBy<T>(
    read: (file: number, offset: number, bytes: number) => Promise<T | null>,
    offset: number,
    length: number,
  ): Promise<T | null> {
    const { handle, modified } = this.check(offset, length);
    const bytes = await read(handle.fd, offset, length).catch((error: NodeJS.ErrnoException) => {
      throw error.code === 'EOF' ? this.shrunk(offset) : unreadable(this.path, error, CheckpointError);
    });
    if (bytes !== null) this.refuseChanged(await handle.stat(), modified);
    return bytes;
  }

  /** As read(), blocking. */
  readSync(offset: number, length: number): Uint8Array {
    const { handle, modified } = this.check(offset, length);
    const out = new Uint8Array(length);
    for (let done = 0; done < length;) {
      const got = fs.readSync(handle.fd, out, done, Math.min(SLICE, length - done), offset + done);
      if (got === 0) throw this.shrunk(offset + done);
      done += got;
    }
    this.refuseChanged(fs.fstatSync(handle.fd), modified);
    return out;
  }

  async hold(offset: number, length: number): Promise<void> {
    const { handle } = this.check(offset, length);
    await (handle as HoldingHandle).hold?.(offset, length);
  }

  async discard(): Promise<void> {
    await (this.open?.handle as HoldingHandle | undefined)?.discard?.();
  }

  async close(): Promise<void> {
    const { open } = this;
    this.open = null;
    await open?.handle.close();
  }

  private check(offset: number, length: number): OpenFile {
    if (!this.open) throw new CheckpointError(`${this.path} was closed.`, { file: this.path });
    if (!(offset >= 0 && length >= 0 && offset + length <= this.size))
      throw outside(this.path, this.size, offset, length);
    return this.open;
  }

  private shrunk(at: number): CheckpointError {
    return new CheckpointError(`${this.path} ended at byte ${at} while it was read; it had ${this.size} bytes.`, {
      file: this.path,
    });
  }

  private refuseChanged(stat: fs.Stats, modified: number): void {
    if (stat.size !== this.size || stat.mtimeMs !== modified) throw changedError(this.path, CheckpointError);
  }
}

/** A path's text; null when there is no such file. */
export async function readTextIfThere(file: string, maxBytes = 25_000_000): Promise<string | null> {
  return readTextFileIfThere(file, CheckpointError, maxBytes);
}
