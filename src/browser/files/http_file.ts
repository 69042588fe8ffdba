/**
 * A file on a server, read at any offset: in blocks by Range requests, each kept as it arrives, so that a download that was broken off goes on
 * where it stopped and a second visit fetches nothing. A server that knows no ranges, or whose answers to them are not what was asked for, sends
 * the whole file once, which is cut into the same blocks.
 */
import { CheckpointError } from '../../base/errors.js';
import { throwIfStopped } from '../../base/regular_file.js';
import { blocksOf } from './body_blocks.js';
import { type Download, downloadOf } from './downloads.js';
import { ask, askPatiently, declaredSize, isPage, partOf, pause, saidBy, TRIES, unreached, versionOf, wait } from './http_answers.js'; // prettier-ignore
import { fileError } from './opfs.js';
import { type ByteStore, byteStore } from './stored.js';

/** Bytes of a block. */
const BLOCK = 4 * 2 ** 20;
/** Blocks of a file that stay in memory: neighbours in a file are read after one another. */
const RECENT = 2;

/** What is known of a file without its bytes. */
interface About {
  readonly size: number;
  readonly version: string;
  /** Bytes that the server declares, where they are others: those of a compressed form whose name cannot be seen from another origin. */
  readonly declared?: number;
  /** The server declared no size, so that an end before its time cannot be told. */
  readonly unsure?: boolean;
}

/** Answers to ranges that are not what was asked for. */
class NoPart extends Error {
  /**
   * @param final whether asking again is of no use
   * @param whole an answer that has the whole file
   */
  constructor(
    message: string,
    readonly final = false,
    readonly whole?: Response,
  ) {
    super(message);
  }
}

const keyOf = (url: string, { version, size, declared = size }: About, index: number): string =>
  `${url} ${version} ${declared} ${BLOCK} ${index}`;

const blocksIn = (size: number): number => Math.ceil(size / BLOCK);

export class HttpFile {
  private readonly recent = new Map<number, Uint8Array>();
  /** Blocks that nothing else keeps. */
  private readonly unkept = new Map<number, Uint8Array>();
  private loaded = 0;
  private readonly counted = new Set<number>();
  private failed = false;

  private constructor(
    readonly url: string,
    private readonly about: About,
    private readonly store: ByteStore | null,
    private readonly download: Download,
  ) {}

  get size(): number {
    return this.about.size;
  }

  /** Whether it can be read still: nobody stopped it, and the server has what it had. */
  get usable(): boolean {
    return !this.failed && !this.download.signal?.aborted;
  }

  /** Opens a file: one request, whose answer is the first block. @throws as node:fs does, with `code` */
  static async open(url: string): Promise<HttpFile> {
    const store = await byteStore();
    const download = downloadOf(url);
    const known = await knownOf(url, store);
    if (known && (await isCurrent(url, known, download))) return new HttpFile(url, known, store, download);
    let first: Response;
    try {
      first = await askPatiently(url, download, [0, BLOCK - 1]);
    } catch (error) {
      throwIfStopped(download.signal);
      // without a network, what was kept is what there is
      if (known) return new HttpFile(url, known, store, download);
      if (error instanceof CheckpointError) throw error;
      // one that compresses parts is refused by the browser, and one that forbids Range to other origins is as well
      const answer = await ask(url, download, null).catch(() => null);
      throwIfStopped(download.signal);
      if (answer) return HttpFile.begin(url, answer, store, download);
      if (await store?.get(`${url} missing`)) throw fileError('ENOENT', `${url}: it was not there when last asked for`);
      throw fileError('ENETUNREACH', unreached(url, error), error);
    }
    const file = await HttpFile.begin(url, first, store, download);
    if (known) await forget(url, known, store, file.about);
    return file;
  }

  private static async begin(
    url: string,
    first: Response,
    store: ByteStore | null,
    download: Download,
  ): Promise<HttpFile> {
    await refuse(url, first, store);
    if (first.status === 200) return HttpFile.whole(url, first, store, download);
    const part = first.status === 206 && !first.headers.get('content-encoding') ? partOf(first) : null;
    if (part?.from === 0) {
      const about = { size: part.total, version: versionOf(first) };
      const file = new HttpFile(url, about, store, download);
      try {
        const bytes = await file.fetchBlock(0, first);
        await file.keepAbout();
        await file.keep(0, bytes);
        return file;
      } catch (error) {
        if (!(error instanceof NoPart)) throw error;
      }
    }
    // no ranges, none whose place can be seen (Access-Control-Expose-Headers: Content-Range), or others than were asked for
    if (!first.bodyUsed) await first.body?.cancel();
    return HttpFile.whole(url, await askWhole(url, store, download), store, download);
  }

  /** Keeps the whole body of an answer, as it arrives. */
  private static async whole(
    url: string,
    answer: Response,
    store: ByteStore | null,
    download: Download,
  ): Promise<HttpFile> {
    const declared = declaredSize(answer);
    const version = versionOf(answer);
    const sure = answer.headers.has('content-length');
    // what is kept before its end is seen belongs to a version
    const early = version !== '' && !Number.isNaN(declared);
    const file = new HttpFile(url, { size: early ? declared : 0, version }, early ? store : null, download);
    const { blocks, size } = await file.take(answer, (loaded) =>
      download.progress(loaded, Number.isNaN(declared) ? loaded : declared),
    );
    // the declared size of an answer of another origin may be that of a compressed form
    if (size !== declared && !Number.isNaN(declared) && (answer.type !== 'cors' || size < declared))
      throw short(url, 0, size, declared);
    const about: About = {
      ...{ size, version },
      ...(!Number.isNaN(declared) && declared !== size && { declared }),
      ...(!sure && { unsure: true }),
    };
    const made = new HttpFile(url, about, store, download);
    for (let index = 0; index < blocksIn(size); index++) made.counted.add(index); // told of as it came
    for (const [index, block] of blocks) await made.put(index, block);
    if (store && made.unkept.size === 0) await made.keepAbout();
    return made;
  }

  /** Cuts a body into blocks, and keeps them. @returns those that are not kept */
  private async take(
    answer: Response,
    progress: (loaded: number) => void,
  ): Promise<{ blocks: Map<number, Uint8Array>; size: number }> {
    const blocks = new Map<number, Uint8Array>();
    let [index, size] = [0, 0];
    try {
      for await (const block of blocksOf(answer, BLOCK, progress)) {
        const kept = this.store ? await this.store.put(keyOf(this.url, this.about, index), block) : null;
        if (kept !== 'kept') blocks.set(index, block);
        index++;
        size += block.length;
      }
    } catch (error) {
      throwIfStopped(this.download.signal);
      throw broken(this.url, size, error, false);
    }
    return { blocks, size };
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

  /** Its bytes are not what they should be: the next time it is fetched anew. */
  async discard(): Promise<void> {
    this.failed = true;
    await forget(this.url, this.about, this.store, null);
  }

  private async keepAbout(): Promise<void> {
    await this.store?.put(`${this.url} about`, new TextEncoder().encode(JSON.stringify(this.about)));
  }

  private async block(index: number): Promise<Uint8Array> {
    throwIfStopped(this.download.signal);
    const expected = this.lengthOf(index);
    const held = this.recent.get(index) ?? this.unkept.get(index);
    if (held) return held;
    const stored = (await this.store?.get(keyOf(this.url, this.about, index))) ?? null;
    if (stored?.length === expected) {
      this.remember(index, stored);
      this.count(index, expected);
      return stored;
    }
    try {
      const bytes = await this.fetchBlock(index);
      await this.keep(index, bytes);
      return bytes;
    } catch (error) {
      throwIfStopped(this.download.signal);
      if (error instanceof NoPart) return this.fetchAll(index, error.whole);
      this.failed = true;
      throw error;
    }
  }

  private lengthOf(index: number): number {
    return Math.min(BLOCK, this.size - index * BLOCK);
  }

  /** A block by ranges: one as a rule, several from a server that sends less than is asked for. @throws NoPart */
  private async fetchBlock(index: number, first?: Response): Promise<Uint8Array> {
    const bytes = new Uint8Array(this.lengthOf(index));
    let at = 0;
    let answer = first;
    for (let tries = 1; at < bytes.length;) {
      const from = index * BLOCK + at;
      try {
        answer ??= await askPatiently(this.url, this.download, [from, index * BLOCK + bytes.length - 1]);
        const part = await this.partFrom(answer, from);
        bytes.set(part.subarray(0, bytes.length - at), at);
        at += part.length;
        tries = 1;
      } catch (error) {
        throwIfStopped(this.download.signal);
        if (error instanceof NoPart && error.final) throw error;
        if (error instanceof CheckpointError && error.data['retry'] !== true) throw error;
        if (tries === TRIES) {
          if (error instanceof NoPart || error instanceof CheckpointError) throw new NoPart(error.message);
          throw broken(this.url, from, error, true);
        }
        await wait(pause(tries++), this.download.signal);
      }
      answer = undefined;
    }
    return bytes;
  }

  /** The bytes of an answer to a request for those from an offset on. @throws NoPart, CheckpointError */
  private async partFrom(answer: Response, from: number): Promise<Uint8Array> {
    const { status } = answer;
    const whole = status === 200 && !isPage(answer, this.url);
    if (status !== 206 && status !== 416 && !whole)
      throw new CheckpointError(`${this.url}: ${saidBy(answer)}, for bytes from ${from}. What has arrived is kept: load again to go on from there.`, { file: this.url, status, at: from }); // prettier-ignore
    const part = partOf(answer);
    if (status === 416 || versionOf(answer) !== this.about.version || (part && part.total !== this.size)) {
      await answer.body?.cancel();
      // some refuse a range since they know none
      if (status === 416 && (await this.isUnchanged())) throw new NoPart('the server refuses ranges (416)', true);
      throw changed(this.url);
    }
    if (whole) throw new NoPart('the server sends the whole file', true, answer);
    if (part?.from !== from) {
      await answer.body?.cancel();
      throw new NoPart(
        `bytes from ${from} were asked for; the answer is ${answer.headers.get('content-range') ?? status}`,
      );
    }
    const bytes = new Uint8Array(await answer.arrayBuffer());
    if (bytes.length !== part.to - from) throw short(this.url, from, bytes.length, part.to - from);
    return bytes;
  }

  private async isUnchanged(): Promise<boolean> {
    return isSame(await ask(this.url, this.download, null, 'HEAD'), this.about);
  }

  /** All blocks by one answer, as a server without ranges gives them. @returns the block that was asked for */
  private async fetchAll(wanted: number, whole?: Response): Promise<Uint8Array> {
    const answer = whole ?? (await askWhole(this.url, this.store, this.download));
    if (versionOf(answer) !== this.about.version) {
      await answer.body?.cancel();
      throw changed(this.url);
    }
    const { blocks, size } = await this.take(answer, () => undefined);
    if (size !== this.size) throw changed(this.url);
    for (const [index, block] of blocks) this.unkept.set(index, block);
    for (let index = 0; index < blocksIn(size); index++) this.count(index, this.lengthOf(index));
    const block = blocks.get(wanted) ?? (await this.store?.get(keyOf(this.url, this.about, wanted)));
    if (!block) throw broken(this.url, wanted * BLOCK, new Error("the browser's cache lost them at once"), false);
    this.remember(wanted, block);
    return block;
  }

  private async keep(index: number, bytes: Uint8Array): Promise<void> {
    this.remember(index, bytes);
    const kept = (await this.store?.put(keyOf(this.url, this.about, index), bytes)) ?? 'kept';
    if (kept !== 'kept') this.download.notKept(kept);
    this.count(index, bytes.length);
  }

  /** As keep(), of a block that cannot be asked for again. */
  private async put(index: number, bytes: Uint8Array): Promise<void> {
    const kept = this.store && this.unkept.size === 0 ? await this.store.put(keyOf(this.url, this.about, index), bytes) : null; // prettier-ignore
    if (kept === 'kept') return;
    this.unkept.set(index, bytes);
    if (kept) this.download.notKept(kept);
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

async function knownOf(url: string, store: ByteStore | null): Promise<About | null> {
  const bytes = await store?.get(`${url} about`);
  try {
    return bytes ? (JSON.parse(new TextDecoder().decode(bytes)) as About) : null;
  } catch {
    return null;
  }
}

/** Whether an answer is about the same file. */
function isSame(answer: Response, { version, size, declared }: About): boolean {
  const told = declaredSize(answer);
  return versionOf(answer) === version && (Number.isNaN(told) || told === size || told === declared);
}

/** Whether what is kept may be used: the server has the same, or does not say. @throws ENOENT where it has none any more */
async function isCurrent(url: string, known: About, download: Download): Promise<boolean> {
  // small ones whose end may be missing are as soon fetched as asked about
  if (known.unsure && known.size <= BLOCK) return false;
  let answer: Response;
  try {
    answer = await ask(url, download, null, 'HEAD');
  } catch {
    throwIfStopped(download.signal);
    return true; // without a network, what was kept is what there is
  }
  if (answer.status === 404 || answer.status === 410) throw fileError('ENOENT', `${url}: ${saidBy(answer)}`);
  // refused, or a page to log in: it is not said that the file is another
  return !answer.ok || isPage(answer, url) || isSame(answer, known);
}

/** Whole files alone: a second answer for one whose ranges were of no use. */
async function askWhole(url: string, store: ByteStore | null, download: Download): Promise<Response> {
  const answer = await askPatiently(url, download, null);
  await refuse(url, answer, store);
  if (answer.status !== 206) return answer;
  throw fileError('EIO', `${url}: the server sends a part (206) where the whole file was asked for`);
}

/** @throws as node:fs does, for an answer that brings no file */
async function refuse(url: string, answer: Response, store: ByteStore | null): Promise<void> {
  const { status, ok } = answer;
  const page = isPage(answer, url);
  if ((ok && !page) || status === 416) return;
  await answer.body?.cancel();
  const said = saidBy(answer);
  const gone = status === 404 || status === 410;
  // a model has files that may be missing; without a network, too
  if (gone || page) await store?.put(`${url} missing`, Uint8Array.of(1));
  // 403 is what buckets say of what they do not have
  const code = gone || page || status === 403 ? 'ENOENT' : status === 401 ? 'EACCES' : 'EIO';
  throw Object.assign(fileError(code, `${url}: ${said}`), { said: gone ? '' : said });
}

/** Forgets what is kept of a file, but for the blocks of what has come in its place. */
async function forget(url: string, old: About, store: ByteStore | null, now: About | null): Promise<void> {
  if (!store) return;
  if (!now) await store.remove(`${url} about`);
  if (now && keyOf(url, now, 0) === keyOf(url, old, 0)) return;
  for (let index = 0; index < blocksIn(old.size); index++) await store.remove(keyOf(url, old, index));
}

function short(url: string, from: number, got: number, expected: number): CheckpointError {
  return new CheckpointError(`${url}: ${got} bytes from ${from} arrived, ${expected} were expected. Load again.`, {
    file: url,
    got,
    expected,
    retry: true,
  });
}

function broken(url: string, from: number, cause: unknown, kept: boolean): CheckpointError {
  const advice = kept ? 'What has arrived is kept: load again to go on from there.' : 'The server sends whole files alone: load again.'; // prettier-ignore
  return new CheckpointError(
    `${url}: bytes from ${from} cannot be fetched (${(cause as Error).message}). ${advice}`,
    { file: url, at: from },
    { cause },
  );
}

function changed(url: string): CheckpointError {
  return new CheckpointError(`${url} was changed while it was read. Load the model again.`, { file: url });
}
