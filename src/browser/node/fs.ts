/**
 * What of node:fs is used, over a page's files: addresses (http_file.ts), files that a person chose (picked.ts) and the page's private files
 * under `opfs:/`, the only ones that can be written. What answers at once is there for bytes that were held before.
 */
import { askedFile } from '../files/asked.js';
import { asFiles, fileError, OPFS, opfsFile, opfsFolder, opfsKind, opfsNames, opfsParts, opfsRemove, opfsRename } from '../files/opfs.js'; // prettier-ignore
import { isPicked, pickedFile, pickedNames } from '../files/picked.js';
import { needsNode } from '../needs_node.js';
import { baseAddress } from '../settings.js';

/** Bytes at any offset. */
interface Readable {
  readonly size: number;
  readonly modified: number;
  read(offset: number, length: number): Promise<Uint8Array>;
  /** See FileHandle.discard(). */
  discard?(): Promise<void>;
}

interface Stat {
  readonly size: number;
  readonly mtimeMs: number;
  isFile(): boolean;
  isDirectory(): boolean;
}

const statOf = (size: number, mtimeMs: number, folder = false): Stat => ({
  size,
  mtimeMs,
  isFile: () => !folder,
  isDirectory: () => folder,
});

/** A file that is open, as fs.promises has it. */
class FileHandle {
  /** Bytes that are to be had at once, by where they begin. */
  private readonly held = new Map<number, Uint8Array>();

  constructor(
    private readonly file: Readable | null,
    private readonly out: FileSystemWritableFileStream | null,
    private readonly path: string,
  ) {}

  get fd(): this {
    return this;
  }

  private get readable(): Readable {
    if (!this.file) throw fileError('EBADF', `${this.path} is open for writing`);
    return this.file;
  }

  async stat(): Promise<Stat> {
    return this.statNow();
  }

  async read(target: Uint8Array, at: number, length: number, position: number): Promise<{ bytesRead: number }> {
    const bytes = await this.readable.read(position, Math.min(length, this.readable.size - position));
    target.set(bytes, at);
    return { bytesRead: bytes.length };
  }

  async readFile(): Promise<Uint8Array> {
    return this.readable.read(0, this.readable.size);
  }

  /** Has bytes ready for one reading at once. */
  async hold(offset: number, length: number): Promise<void> {
    if (length > 0) this.held.set(offset, await this.readable.read(offset, length));
  }

  takeHeld(offset: number, length: number): Uint8Array {
    const bytes = length === 0 ? new Uint8Array() : this.held.get(offset);
    if (bytes?.length !== length)
      throw fileError(
        'EAGAIN',
        `${this.path}: bytes from ${offset} are not in memory, and a page cannot wait for them`,
      );
    this.held.delete(offset);
    return bytes;
  }

  /** Forgets what is kept of a file whose bytes are not what they should be. */
  async discard(): Promise<void> {
    await this.file?.discard?.();
  }

  statNow(): Stat {
    return statOf(this.readable.size, this.readable.modified);
  }

  async write(bytes: Uint8Array, from = 0, length = bytes.length - from): Promise<{ bytesWritten: number }> {
    const { out } = this;
    if (!out) throw fileError('EBADF', `${this.path} is open for reading`);
    await asFiles(this.path, () => out.write(bytes.subarray(from, from + length) as Uint8Array<ArrayBuffer>));
    return { bytesWritten: length };
  }

  async sync(): Promise<void> {
    // a writable of the browser is whole when it is closed
  }

  async close(): Promise<void> {
    this.held.clear();
    const { out } = this;
    if (out) await asFiles(this.path, () => out.close());
  }
}

const ofFile = (file: File): Readable => ({
  size: file.size,
  modified: file.lastModified,
  read: async (offset, length) => new Uint8Array(await file.slice(offset, offset + length).arrayBuffer()),
});

const missing = (path: string): Error => fileError('ENOENT', `ENOENT: no such file, ${path}`);

const urlOf = (path: string): string => new URL(path, baseAddress()).href;

async function openReadable(path: string): Promise<Readable> {
  if (OPFS.test(path)) return ofFile(await asFiles(path, async () => (await opfsFile(path, false)).getFile()));
  if (isPicked(path)) {
    const file = pickedFile(path);
    if (!file) throw missing(path);
    return ofFile(file);
  }
  const file = await askedFile(urlOf(path));
  return {
    ...{ size: file.size, modified: 0 },
    read: (offset, length) => file.read(offset, length),
    discard: () => file.discard(),
  };
}

function refuseWriting(path: string): void {
  if (!OPFS.test(path))
    throw fileError('ENOTSUP', `A page writes its private files alone: name it opfs:/${path.replace(/^.*\//, '')}`);
}

/** A name with an ending is a file's: addresses do not say what lies behind them. */
const looksLikeFile = (path: string): boolean => /\.[a-z0-9]+$/i.test(path.replace(/\/+$/, '').split('/').at(-1)!) && !path.endsWith('/'); // prettier-ignore

export const promises = {
  async open(path: string, flags: string | number = 'r'): Promise<FileHandle> {
    if (flags === 'r' || typeof flags === 'number') return new FileHandle(await openReadable(path), null, path);
    refuseWriting(path);
    if (flags === 'wx' && (await opfsKind(path)) !== null) throw fileError('EEXIST', `EEXIST: ${path}`);
    const out = await asFiles(path, async () => (await opfsFile(path, true)).createWritable());
    return new FileHandle(null, out, path);
  },
  async stat(path: string): Promise<Stat> {
    if (OPFS.test(path)) {
      const kind = await opfsKind(path);
      if (kind === null) throw missing(path);
      if (kind === 'folder') return statOf(0, 0, true);
    } else if (isPicked(path)) {
      if (pickedNames(path) !== null) return statOf(0, 0, true);
    } else if (!looksLikeFile(path)) {
      return statOf(0, 0, true);
    }
    const file = await openReadable(path);
    return statOf(file.size, file.modified);
  },
  async access(path: string): Promise<void> {
    await promises.stat(path);
  },
  async readdir(path: string): Promise<string[]> {
    if (OPFS.test(path)) return opfsNames(path);
    if (isPicked(path)) {
      const names = pickedNames(path);
      if (names) return names;
    }
    throw missing(path); // a server does not say
  },
  async readFile(path: string): Promise<Uint8Array> {
    return (await promises.open(path)).readFile();
  },
  async mkdir(path: string): Promise<void> {
    refuseWriting(path);
    await asFiles(path, () => opfsFolder(opfsParts(path), true));
  },
  async rename(from: string, to: string): Promise<void> {
    refuseWriting(to);
    await opfsRename(from, to);
  },
  async rm(path: string, { recursive = false, force = false } = {}): Promise<void> {
    refuseWriting(path);
    await opfsRemove(path, recursive).catch((error: { code?: string }) => {
      if (!force || error.code !== 'ENOENT') throw error as Error;
    });
  },
};

export const access = (path: string): Promise<void> => promises.access(path);
export const readdir = (path: string): Promise<string[]> => promises.readdir(path);
export const constants = { O_RDONLY: 0, O_NONBLOCK: 0 };

/** Nothing is there at once: what may be in a browser is asked for with promises. */
export const existsSync = (): boolean => false;

/** Bytes that were held. */
export function readSync(fd: FileHandle, out: Uint8Array, at: number, length: number, position: number): number {
  out.set(fd.takeHeld(position, length), at);
  return length;
}

export const fstatSync = (fd: FileHandle): Stat => fd.statNow();
export const statSync = needsNode('Asking for a file at once');
export const readFileSync = needsNode('Reading a file at once');
export const readdirSync = needsNode('Reading a folder at once');
export const realpathSync = needsNode('Asking for a path at once');
export const rmSync = needsNode('Removing a file at once');
export const mkdirSync = needsNode('Making a folder at once');
export const appendFileSync = needsNode('Appending to a file');
export const createReadStream = needsNode('Reading a file as a stream');
