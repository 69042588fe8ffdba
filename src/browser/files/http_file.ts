/**
 * A file on a server, read at any offset: in blocks by Range requests, each kept as it arrives, so that a download that was broken off goes on
 * where it stopped and a second visit fetches nothing. A server that knows no ranges sends the whole file once, which is cut into the same blocks.
 */
import { concatBytes } from '../../base/bytes.js';
import { CheckpointError } from '../../base/errors.js';
import { fileError } from './opfs.js';
import { type ByteStore, byteStore } from './stored.js';
import { type Download, downloadOf } from './downloads.js';

/** Bytes of a block. */
const BLOCK = 4 * 2 ** 20;
/** Blocks of a file that stay in memory: neighbours in a file are read after one another. */
const RECENT = 2;
const TRIES = 4;

/** What is known of a file without its bytes. */
interface About {
  readonly size: number;
  /** What changes when the file does: its ETag, or the time of its last change. */
  readonly version: string;
}

const versionOf = ({ headers }: Response): string => headers.get('etag') ?? headers.get('last-modified') ?? '';

/** The size of the whole file, of an answer with a part of it; null where the server does not let it be seen. */
function totalOf({ headers }: Response): number | null {
  const total = /\/(\d+)$/.exec(headers.get('content-range') ?? '')?.[1];
  return total === undefined ? null : Number(total);
}

/** A page that a server has for whatever it does not know. */
const isPage = ({ headers }: Response, url: string): boolean =>
  /^text\/html/.test(headers.get('content-type') ?? '') && !/\.html?$/.test(new URL(url).pathname);

const wait = (milliseconds: number): Promise<void> => new Promise((done) => setTimeout(done, milliseconds));

export class HttpFile {
  private readonly recent = new Map<number, Uint8Array>();
  /** Blocks that nothing else keeps. */
  private readonly unkept = new Map<number, Uint8Array>();
  private ranges = true;
  private loaded = 0;
  private readonly counted = new Set<number>();

  private constructor(
    readonly url: string,
    private readonly about: About,
    private readonly store: ByteStore | null,
    private readonly download: Download,
  ) {}

  get size(): number {
    return this.about.size;
  }

  /** Opens a file: one request, whose answer is the first block. @throws as node:fs does, with `code` */
  static async open(url: string): Promise<HttpFile> {
    const store = await byteStore();
    const download = downloadOf(url);
    const known = await HttpFile.known(url, store);
    let first: Response;
    try {
      first = await ask(url, download, known ? null : [0, BLOCK - 1], known ? 'HEAD' : 'GET');
    } catch (error) {
      download.signal?.throwIfAborted();
      // without a network, what was kept is what there is
      if (known) return new HttpFile(url, known, store, download);
      if (await store?.get(`${url} missing`)) throw fileError('ENOENT', `${url}: it was not there when last asked for`);
      throw fileError('ENETUNREACH', `${url} cannot be reached: ${(error as Error).message}`, error);
    }
    if (known) {
      if (first.status === 404 || first.status === 410) throw fileError('ENOENT', `${url}: ${first.status}`);
      const same = !first.ok || (versionOf(first) === known.version && sizeOf(first, known.size) === known.size);
      if (same) return new HttpFile(url, known, store, download);
      await store?.remove(`${url} about`);
      first = await ask(url, download, [0, BLOCK - 1], 'GET');
    }
    if (first.status === 404 || first.status === 410 || (first.ok && isPage(first, url))) {
      await first.body?.cancel();
      // a model has files that may be missing; without a network, too
      await store?.put(`${url} missing`, Uint8Array.of(1));
      throw fileError('ENOENT', `${url}: ${first.ok ? 'a page of HTML' : first.status}`);
    }
    if (first.status === 401 || first.status === 403)
      throw fileError('EACCES', `${url}: the server refuses it (${first.status})`);
    if (first.status === 416) return HttpFile.of(url, { size: 0, version: '' }, store, download);
    if (!first.ok) throw fileError('EIO', `${url}: the server answers ${first.status} ${first.statusText}`.trim());
    const total = first.status === 206 ? totalOf(first) : null;
    if (first.status === 206 && total !== null) {
      const file = await HttpFile.of(url, { size: total, version: versionOf(first) }, store, download);
      const bytes = new Uint8Array(await first.arrayBuffer());
      if (bytes.length !== Math.min(BLOCK, total)) throw short(url, 0, bytes.length, Math.min(BLOCK, total));
      await file.keep(0, bytes);
      return file;
    }
    // no ranges, or none whose size can be seen (Access-Control-Expose-Headers: Content-Range): the file as a whole
    if (first.status === 206) {
      await first.body?.cancel();
      first = await ask(url, download, null, 'GET');
    }
    return HttpFile.whole(url, first, store, download);
  }

  private static async known(url: string, store: ByteStore | null): Promise<About | null> {
    const bytes = await store?.get(`${url} about`);
    try {
      return bytes ? (JSON.parse(new TextDecoder().decode(bytes)) as About) : null;
    } catch {
      return null;
    }
  }

  private static async of(url: string, about: About, store: ByteStore | null, download: Download): Promise<HttpFile> {
    const file = new HttpFile(url, about, store, download);
    await file.keepAbout();
    return file;
  }

  /** The whole body of an answer, cut into blocks. */
  private static async whole(
    url: string,
    answer: Response,
    store: ByteStore | null,
    download: Download,
  ): Promise<HttpFile> {
    const version = versionOf(answer);
    const declared = sizeOf(answer, NaN);
    const blocks: Uint8Array[] = [];
    let rest: Uint8Array[] = [];
    let held = 0;
    let size = 0;
    const cut = (all: boolean): void => {
      while (held >= BLOCK || (all && held > 0)) {
        const joined = concatBytes(rest);
        blocks.push(joined.slice(0, BLOCK));
        rest = [joined.subarray(Math.min(BLOCK, held))];
        held -= Math.min(BLOCK, held);
      }
    };
    const reader = answer.body?.getReader();
    while (reader) {
      const { done, value } = await reader.read();
      if (done) break;
      rest.push(value);
      held += value.length;
      size += value.length;
      cut(false);
      download.progress(size, Number.isNaN(declared) ? size : declared);
    }
    cut(true);
    if (!Number.isNaN(declared) && declared !== size) throw short(url, 0, size, declared);
    const file = new HttpFile(url, { size, version }, store, download);
    file.ranges = false;
    let kept = store !== null;
    for (const [i, block] of blocks.entries()) {
      const stays = kept && (await store!.put(file.key(i), block));
      if (!stays) file.unkept.set(i, block);
      kept &&= stays;
      file.counted.add(i); // told of as it came
    }
    if (kept) await file.keepAbout();
    else if (store) download.notKept();
    return file;
  }

  /** Bytes [offset, offset + length). */
  async read(offset: number, length: number): Promise<Uint8Array> {
    const out = new Uint8Array(length);
    for (let at = offset; at < offset + length;) {
      const index = Math.floor(at / BLOCK);
      const block = await this.block(index);
      const part = block.subarray(at - index * BLOCK, offset + length - index * BLOCK);
      out.set(part, at - offset);
      at += part.length;
    }
    return out;
  }

  private async keepAbout(): Promise<void> {
    await this.store?.put(`${this.url} about`, new TextEncoder().encode(JSON.stringify(this.about)));
  }

  private key(index: number): string {
    const { size, version } = this.about;
    return `${this.url} ${version} ${size} ${BLOCK} ${index}`;
  }

  private async block(index: number): Promise<Uint8Array> {
    const expected = Math.min(BLOCK, this.size - index * BLOCK);
    let bytes = this.recent.get(index) ?? this.unkept.get(index) ?? null;
    if (bytes) return bytes;
    bytes = (await this.store?.get(this.key(index))) ?? null;
    if (bytes?.length === expected) {
      this.remember(index, bytes);
      this.count(index, expected);
      return bytes;
    }
    this.download.signal?.throwIfAborted();
    if (!this.ranges)
      throw new CheckpointError(
        `${this.url}: bytes that were fetched are gone from the browser's cache, and the server sends no parts of a file. Load the model again.`,
        { file: this.url },
      );
    bytes = await this.fetchBlock(index, expected);
    await this.keep(index, bytes);
    return bytes;
  }

  private async fetchBlock(index: number, expected: number): Promise<Uint8Array> {
    const from = index * BLOCK;
    for (let tries = 1; ; tries++) {
      try {
        const answer = await ask(this.url, this.download, [from, from + expected - 1], 'GET');
        const { status } = answer;
        if (status !== 206 && status !== 200)
          throw new CheckpointError(`${this.url}: the server answers ${status} for bytes from ${from}.`, {
            file: this.url,
            status,
          });
        if (versionOf(answer) !== this.about.version) throw changed(this.url);
        const all = new Uint8Array(await answer.arrayBuffer());
        const bytes = status === 200 ? all.slice(from, from + expected) : all;
        if (bytes.length === expected) return bytes;
        throw short(this.url, from, bytes.length, expected);
      } catch (error) {
        this.download.signal?.throwIfAborted();
        const final = error instanceof CheckpointError && error.data['retry'] !== true && !retried(error);
        if (final || tries === TRIES) throw final ? error : broken(this.url, from, error);
        await wait(200 * 2 ** tries);
      }
    }
  }

  private async keep(index: number, bytes: Uint8Array): Promise<void> {
    this.remember(index, bytes);
    const kept = (await this.store?.put(this.key(index), bytes)) ?? true;
    if (!kept) this.download.notKept();
    this.count(index, bytes.length);
  }

  private remember(index: number, bytes: Uint8Array): void {
    this.recent.set(index, bytes);
    for (const old of this.recent.keys()) if (this.recent.size > RECENT) this.recent.delete(old);
  }

  private count(index: number, bytes: number): void {
    if (this.counted.has(index)) return;
    this.counted.add(index);
    this.loaded += bytes;
    this.download.progress(this.loaded, this.size);
  }
}

function sizeOf({ headers }: Response, otherwise: number): number {
  const length = headers.get('content-encoding') ? null : headers.get('content-length');
  return length === null ? otherwise : Number(length);
}

const retried = ({ data }: CheckpointError): boolean => typeof data['status'] === 'number' && data['status'] >= 500;

function short(url: string, from: number, got: number, expected: number): CheckpointError {
  return new CheckpointError(`${url}: ${got} bytes from ${from} arrived, ${expected} were expected.`, {
    file: url,
    got,
    expected,
    retry: true,
  });
}

function broken(url: string, from: number, cause: unknown): CheckpointError {
  return new CheckpointError(
    `${url}: bytes from ${from} cannot be fetched (${(cause as Error).message}). What has arrived is kept: load again to go on from there.`,
    { file: url, at: from },
    { cause },
  );
}

function changed(url: string): CheckpointError {
  return new CheckpointError(`${url} was changed while it was read. Load the model again.`, { file: url });
}

function ask(
  url: string,
  { signal, token }: Download,
  range: readonly [number, number] | null,
  method: 'GET' | 'HEAD',
): Promise<Response> {
  return fetch(url, {
    method,
    headers: {
      ...(range && { Range: `bytes=${range[0]}-${range[1]}` }),
      ...(token !== undefined && { Authorization: `Bearer ${token}` }),
    },
    // our blocks are what is kept
    cache: 'no-store',
    ...(signal && { signal }),
  });
}
