/** Where fetched bytes are kept: the Cache API; the page's private files (OPFS) for what that refuses; nowhere where both do. */
import { browserSettings } from '../settings.js';
import { opfsFolder } from './opfs.js';

/** Why bytes are not kept. */
export type NotKept = 'no room' | 'no storage';

/** Bytes by name. */
export interface ByteStore {
  /** What was put, as it was; null where it is gone, or is no longer what it was. */
  get(key: string): Promise<Uint8Array | null>;
  put(key: string, bytes: Uint8Array): Promise<'kept' | NotKept>;
  remove(key: string): Promise<void>;
}

/** Cache entries have addresses; this one reaches no server. */
const ORIGIN = 'https://tfjs-mamba2.invalid/';

/** Words of a sum. */
const LANES = 4;

/** A sum of bytes, of 16 bytes: enough for what a disk or a crash makes of them, and fast. */
function sumOf(bytes: Uint8Array): Uint8Array {
  const aligned = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
  const words = new Int32Array(aligned.buffer, aligned.byteOffset, aligned.length >> 2);
  const sums = Int32Array.of(bytes.length, 1, 2, 3);
  let [a, b, c, d] = sums as unknown as [number, number, number, number];
  const whole = words.length - (words.length % LANES);
  for (let i = 0; i < whole; i += LANES) {
    a = (Math.imul(a, 0x01000193) ^ words[i]!) + (a >>> 15);
    b = (Math.imul(b, 0x01000193) ^ words[i + 1]!) + (b >>> 15);
    c = (Math.imul(c, 0x01000193) ^ words[i + 2]!) + (c >>> 15);
    d = (Math.imul(d, 0x01000193) ^ words[i + 3]!) + (d >>> 15);
  }
  for (let i = 4 * whole; i < bytes.length; i++) a = (Math.imul(a, 0x01000193) ^ bytes[i]!) + (a >>> 15);
  sums.set([a, b, c, d]);
  return new Uint8Array(sums.buffer);
}

const SUM = 4 * LANES;

/** What was kept with its sum behind it. */
function checked(kept: Uint8Array): Uint8Array | null {
  const bytes = kept.subarray(0, Math.max(0, kept.length - SUM));
  const sum = sumOf(bytes);
  return kept.length >= SUM && kept.subarray(-SUM).every((byte, i) => byte === sum[i]) ? bytes : null;
}

/** A name for a file in a folder: of a length that file names may have. */
function fileName(key: string): string {
  const sum = [...sumOf(new TextEncoder().encode(key))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
  return `${sum} ${key.replace(/[^\w.-]+/g, '_').slice(-100)}`;
}

/** A request of the cache for a name. */
const entryOf = (key: string): string => ORIGIN + encodeURIComponent(key);

class Kept implements ByteStore {
  constructor(
    private readonly name: string,
    private readonly cache: Cache | null,
  ) {}

  async get(key: string): Promise<Uint8Array | null> {
    try {
      const found = await this.cache?.match(entryOf(key));
      const bytes = found ? checked(new Uint8Array(await found.arrayBuffer())) : null;
      if (bytes) return bytes;
    } catch {
      // a cache that was taken away, or that lost the entry's bytes
    }
    try {
      const folder = await opfsFolder([`.${this.name}`], false);
      const file = await (await folder.getFileHandle(fileName(key))).getFile();
      return checked(new Uint8Array(await file.arrayBuffer()));
    } catch {
      return null;
    }
  }

  async put(key: string, bytes: Uint8Array): Promise<'kept' | NotKept> {
    const kept = new Blob([bytes as Uint8Array<ArrayBuffer>, sumOf(bytes) as Uint8Array<ArrayBuffer>]);
    try {
      if (this.cache) {
        await this.cache.put(entryOf(key), new Response(kept));
        return 'kept';
      }
    } catch {
      // a full quota, or a cache that was taken away: private files may still have room
    }
    try {
      const folder = await opfsFolder([`.${this.name}`], true);
      const writable = await (await folder.getFileHandle(fileName(key), { create: true })).createWritable();
      try {
        await writable.write(kept);
        await writable.close();
      } catch (error) {
        await writable.abort().catch(() => undefined);
        await folder.removeEntry(fileName(key)).catch(() => undefined);
        throw error;
      }
      return 'kept';
    } catch (error) {
      const { name, code } = error as { name: string; code?: unknown };
      return code === 'EACCES' || (!this.cache && name === 'SecurityError') ? 'no storage' : 'no room';
    }
  }

  async remove(key: string): Promise<void> {
    await this.cache?.delete(entryOf(key)).catch(() => false);
    await opfsFolder([`.${this.name}`], false)
      .then((folder) => folder.removeEntry(fileName(key)))
      .catch(() => undefined);
  }
}

/** What the page's caches give; null where it has none: a frame of no origin may not even ask for them. */
async function cacheOf<T>(of: (caches: CacheStorage) => Promise<T>): Promise<T | null> {
  try {
    return (globalThis.caches as CacheStorage | undefined) ? await of(globalThis.caches) : null;
  } catch {
    return null;
  }
}

/** The store in use; null where nothing is to be kept. */
export async function byteStore(): Promise<ByteStore | null> {
  const name = browserSettings().cache ?? 'tfjs-mamba2';
  if (name === false) return null;
  return new Kept(String(name), await cacheOf((caches) => caches.open(String(name))));
}

/** Forgets all fetched bytes. */
export async function clearDownloads(): Promise<void> {
  const name = String(browserSettings().cache || 'tfjs-mamba2');
  await cacheOf((caches) => caches.delete(name));
  await opfsFolder([], false)
    .then((root) => root.removeEntry(`.${name}`, { recursive: true }))
    .catch(() => undefined);
}
