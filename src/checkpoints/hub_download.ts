/**
 * One file from the hub into the cache: streamed to disk, resumed after a cut connection, compared with its checksum
 * before it gets its name.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { createHash } from 'node:crypto';
import { CheckpointError } from '../base/errors.js';
import { withLock } from '../base/lock.js';
import { saveError } from '../base/whole_files.js';
import { authorization, environmentFetch, type HubAccess, hubTimeout, within } from './hub_request.js';

/** A file of a repository, as its listing describes it. */
export interface HubFile {
  readonly path: string;
  readonly size: number;
  /** SHA-256 of large files, git's SHA-1 of small ones; also the blob's name in the cache */
  readonly checksum: string;
}

/** How a download is made. */
export interface DownloadOptions {
  /** Where the token goes along. */
  readonly access: HubAccess;
  /** called with the bytes on disk */
  readonly onBytes?: (bytes: number) => void;
  /** called with what is waited for, where another process fetches the file already */
  readonly onWait?: (what: string) => void;
  /** milliseconds before the first new attempt, doubled each time; default 500 */
  readonly retry_delay?: number;
}

/** New attempts that may follow each other without a byte arriving. */
const ATTEMPTS = 5;

/** A failure that another attempt may cure. */
class Interrupted extends Error {}

/** Compares a file on disk with its checksum. */
async function matches(file: string, { size, checksum }: HubFile): Promise<boolean> {
  const hash = checksum.length === 64 ? createHash('sha256') : createHash('sha1').update(`blob ${size}\0`);
  for await (const chunk of fs.createReadStream(file, { highWaterMark: 2 ** 20 })) hash.update(chunk as Buffer);
  return hash.digest('hex') === checksum;
}

async function sizeOf(file: string): Promise<number> {
  return (await fs.promises.stat(file).catch(() => null))?.size ?? 0;
}

/** The error of an answer that is no success. */
export function statusError(status: number, url: string, what: string): CheckpointError {
  const why =
    status === 401 || status === 403
      ? 'access is denied. It may be private or gated, or not exist: accept its terms on the hub and set HF_TOKEN to a token that may read it'
      : status === 404
        ? 'it is not there. Check its name and revision'
        : `the server answered with status ${status}`;
  return new CheckpointError(`${what}: ${why} (${url}).`, { status, url });
}

/**
 * Asks for the bytes that are missing and appends them.
 * @throws Interrupted when the connection broke or the server is busy; CheckpointError when asking again is no use
 */
async function fetchRest(url: string, partial: string, file: HubFile, options: DownloadOptions): Promise<void> {
  let have = await sizeOf(partial);
  if (have > file.size) {
    await fs.promises.rm(partial, { force: true });
    have = 0;
  }
  if (have === file.size && have > 0) return;
  const { signal } = options.access;
  const request = await environmentFetch();
  let response: Response;
  const limit = within(hubTimeout(), signal);
  const stalled = new AbortController();
  try {
    const range: Record<string, string> = have > 0 ? { Range: `bytes=${have}-` } : {};
    const headers = { ...authorization(url, options.access), ...range };
    limit.signal.addEventListener('abort', () => stalled.abort(limit.signal.reason), { once: true });
    response = await request(url, { headers, signal: stalled.signal });
  } catch (error) {
    signal?.throwIfAborted();
    throw new Interrupted((error as Error).message, { cause: error });
  } finally {
    limit.done();
  }
  if (response.status === 429 || response.status >= 500) throw new Interrupted(`status ${response.status}`);
  if (!response.ok) throw statusError(response.status, url, file.path);
  // a server that ignores the range sends the file from its beginning
  if (response.status !== 206) have = 0;
  // in a cache that others can write to the place may be a link to a file of this user's
  const { O_WRONLY, O_CREAT, O_APPEND, O_TRUNC, O_NOFOLLOW = 0 } = fs.constants;
  const flags = O_WRONLY | O_CREAT | O_NOFOLLOW | (have > 0 ? O_APPEND : O_TRUNC);
  const out = await fs.promises.open(partial, flags).catch((error: unknown) => {
    throw saveError(partial, error);
  });
  try {
    const body = (response.body ?? []) as unknown as AsyncIterable<Uint8Array>;
    const pieces = body[Symbol.asyncIterator]();
    for (let done = false; !done;) {
      const patience = within(hubTimeout(), signal);
      patience.signal.addEventListener('abort', () => stalled.abort(patience.signal.reason), { once: true });
      const next = await pieces
        .next()
        .catch((error: unknown) => {
          signal?.throwIfAborted();
          throw new Interrupted((error as Error).message, { cause: error });
        })
        .finally(() => patience.done());
      if (next.done) done = true;
      else {
        have += next.value.byteLength;
        if (have > file.size)
          throw new CheckpointError(`${file.path}: more than its ${file.size} bytes came from ${url}.`, { url });
        await out.writeFile(next.value).catch((error: unknown) => {
          throw saveError(partial, error);
        });
        options.onBytes?.(have);
      }
    }
  } finally {
    await out.close();
  }
  if (have < file.size) throw new Interrupted(`the connection ended after ${have} of ${file.size} bytes`);
}

/**
 * Downloads a file to `blobs/<checksum>`, unless it is there.
 * @param url where it is
 * @param folder the repository's folder in the cache
 * @throws CheckpointError (denied, not there, wrong checksum, unreachable), SaveError (disk full)
 */
export async function downloadBlob(
  url: string,
  folder: string,
  file: HubFile,
  options: DownloadOptions,
): Promise<string> {
  const blob = path.join(folder, 'blobs', file.checksum);
  if (fs.existsSync(blob)) return blob;
  await fs.promises.mkdir(path.dirname(blob), { recursive: true }).catch((error: unknown) => {
    throw saveError(blob, error);
  });
  await withLock(
    `${blob}.tfjs.lock`,
    async () => {
      if (!fs.existsSync(blob)) await downloadTo(blob, url, file, options);
    },
    {
      signal: options.access.signal,
      onWait: (_, who) => options.onWait?.(`waiting for ${who}, which is fetching ${file.path} (${blob}.tfjs.lock)`),
    },
  );
  return blob;
}

/** Fetches, again where that may help, until the checksum is right; then gives the file its name. */
async function downloadTo(blob: string, url: string, file: HubFile, options: DownloadOptions): Promise<void> {
  // Python's own unfinished downloads have another name: it may be writing to them
  const partial = `${blob}.tfjs.incomplete`;
  let failures = 0;
  let wrong = 0;
  while (true) {
    const before = await sizeOf(partial);
    try {
      await fetchRest(url, partial, file, options);
      if (file.size === 0) await fs.promises.writeFile(partial, '');
      if (await matches(partial, file)) break;
      await fs.promises.rm(partial, { force: true });
      // what an earlier run left may have been wrong: once more, from the beginning
      if (++wrong > 1 || before === 0)
        throw new CheckpointError(
          `${file.path}: what came from ${url} does not match its checksum ${file.checksum}. It was deleted; try again later.`,
          { url, checksum: file.checksum },
        );
    } catch (error) {
      if (!(error instanceof Interrupted)) throw error;
      failures = (await sizeOf(partial)) > before ? 1 : failures + 1;
      if (failures >= ATTEMPTS)
        throw new CheckpointError(
          `${file.path}: the download from ${url} failed ${ATTEMPTS} times: ${error.message}. What came is kept; run again to go on.`,
          { url },
          { cause: error },
        );
      const delay = (options.retry_delay ?? 500) * 2 ** (failures - 1);
      await new Promise((resolve) => setTimeout(resolve, delay));
      options.access.signal?.throwIfAborted();
    }
  }
  await fs.promises.rename(partial, blob);
}
