/** Where fetched bytes are kept: the Cache API; the page's private files (OPFS) for what that refuses; nowhere where both do. */
import { browserSettings } from '../settings.js';
import { opfsFolder } from './opfs.js';

/** Bytes by name. */
export interface ByteStore {
  get(key: string): Promise<Uint8Array | null>;
  /** @returns whether they are kept */
  put(key: string, bytes: Uint8Array): Promise<boolean>;
  remove(key: string): Promise<void>;
}

/** Cache entries have addresses; this one reaches no server. */
const ORIGIN = 'https://tfjs-mamba2.invalid/';

/** A name for a file in a folder: what an address may hold and a file name may not. */
const fileName = (key: string): string => encodeURIComponent(key).replaceAll('%', '_').replaceAll('*', '_');

class Kept implements ByteStore {
  constructor(
    private readonly name: string,
    private readonly cache: Cache | null,
  ) {}

  async get(key: string): Promise<Uint8Array | null> {
    const found = await this.cache?.match(ORIGIN + encodeURIComponent(key)).catch(() => undefined);
    if (found) return new Uint8Array(await found.arrayBuffer());
    try {
      const folder = await opfsFolder([`.${this.name}`], false);
      const file = await (await folder.getFileHandle(fileName(key))).getFile();
      return new Uint8Array(await file.arrayBuffer());
    } catch {
      return null;
    }
  }

  async put(key: string, bytes: Uint8Array): Promise<boolean> {
    try {
      if (this.cache) {
        await this.cache.put(ORIGIN + encodeURIComponent(key), new Response(bytes as Uint8Array<ArrayBuffer>));
        return true;
      }
    } catch {
      // a full quota, or a cache that was taken away: private files may still have room
    }
    try {
      const folder = await opfsFolder([`.${this.name}`], true);
      const writable = await (await folder.getFileHandle(fileName(key), { create: true })).createWritable();
      try {
        await writable.write(bytes as Uint8Array<ArrayBuffer>);
        await writable.close();
      } catch (error) {
        await writable.abort().catch(() => undefined);
        await folder.removeEntry(fileName(key)).catch(() => undefined);
        throw error;
      }
      return true;
    } catch {
      return false;
    }
  }

  async remove(key: string): Promise<void> {
    await this.cache?.delete(ORIGIN + encodeURIComponent(key)).catch(() => false);
    await opfsFolder([`.${this.name}`], false)
      .then((folder) => folder.removeEntry(fileName(key)))
      .catch(() => undefined);
  }
}

/** The store in use; null where nothing is to be kept. */
export async function byteStore(): Promise<ByteStore | null> {
  const name = browserSettings().cache ?? 'tfjs-mamba2';
  if (name === false) return null;
  const cache = await globalThis.caches?.open(String(name)).catch(() => null);
  return new Kept(String(name), cache ?? null);
}

/** Forgets all fetched bytes. */
export async function clearDownloads(): Promise<void> {
  const name = String(browserSettings().cache || 'tfjs-mamba2');
  await globalThis.caches?.delete(name).catch(() => false);
  await opfsFolder([], false)
    .then((root) => root.removeEntry(`.${name}`, { recursive: true }))
    .catch(() => undefined);
}
