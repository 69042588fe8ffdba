/** Reading a file by offset. Writing one is in whole_files.ts. */
import * as fs from 'node:fs';
import { CheckpointError } from './errors.js';
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
  close(): Promise<void>;
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

/** A regular file open for reading at any offset. Its size is taken once: a file that shrinks meanwhile is an error. */
export class RandomAccessFile implements ByteSource {
  private handle: fs.promises.FileHandle | null;

  private constructor(
    readonly path: string,
    readonly size: number,
    handle: fs.promises.FileHandle,
  ) {
    this.handle = handle;
  }

  /** @throws CheckpointError when there is no such file, or it is not a regular one */
  static async open(file: string): Promise<RandomAccessFile> {
    let handle: fs.promises.FileHandle | undefined;
    try {
      // a pipe or a device would block the open itself
      const stat = await fs.promises.stat(file);
      if (!stat.isFile()) throw new CheckpointError(`${file} is not a regular file.`, { file });
      handle = await fs.promises.open(file, 'r');
      return new RandomAccessFile(file, (await handle.stat()).size, handle);
    } catch (error) {
      await handle?.close();
      if (error instanceof CheckpointError) throw error;
      const code = (error as NodeJS.ErrnoException).code;
      const why = code === 'ENOENT' ? 'there is no such file' : (error as Error).message;
      throw new CheckpointError(`Cannot open ${file}: ${why}.`, { file, code }, { cause: error });
    }
  }

  /** Bytes [offset, offset + length), freshly allocated. Nothing is allocated when the range leaves the file. */
  async read(offset: number, length: number): Promise<Uint8Array> {
    const handle = this.check(offset, length);
    const out = new Uint8Array(length);
    for (let done = 0; done < length;) {
      const { bytesRead } = await handle.read(out, done, Math.min(SLICE, length - done), offset + done);
      if (bytesRead === 0) throw this.shrunk(offset + done);
      done += bytesRead;
    }
    return out;
  }

  /** As read(), blocking. */
  readSync(offset: number, length: number): Uint8Array {
    const handle = this.check(offset, length);
    const out = new Uint8Array(length);
    for (let done = 0; done < length;) {
      const got = fs.readSync(handle.fd, out, done, Math.min(SLICE, length - done), offset + done);
      if (got === 0) throw this.shrunk(offset + done);
      done += got;
    }
    return out;
  }

  async close(): Promise<void> {
    const handle = this.handle;
    this.handle = null;
    await handle?.close();
  }

  private check(offset: number, length: number): fs.promises.FileHandle {
    if (!this.handle) throw new CheckpointError(`${this.path} was closed.`, { file: this.path });
    if (!(offset >= 0 && length >= 0 && offset + length <= this.size))
      throw outside(this.path, this.size, offset, length);
    return this.handle;
  }

  private shrunk(at: number): CheckpointError {
    return new CheckpointError(`${this.path} ended at byte ${at} while it was read; it had ${this.size} bytes.`, {
      file: this.path,
    });
  }
}

/** A path's text; null when there is no such file. */
export async function readTextIfThere(file: string, maxBytes = 25_000_000): Promise<string | null> {
  return readTextFileIfThere(file, CheckpointError, maxBytes);
}
