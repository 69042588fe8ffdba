/** What servers say of a file and its parts, and asking again those that may answer otherwise in a moment. */
import { CheckpointError } from '../../base/errors.js';
import { throwIfStopped } from '../../base/regular_file.js';
import type { Download } from './downloads.js';

export const TRIES = 4;
/** Longest wait that a server may ask for, in milliseconds. */
const MOST_PATIENCE = 30_000;
/** Answers that another try may change: too busy, too many requests, a gateway without its server. */
const PASSING: readonly number[] = [408, 425, 429, 500, 502, 503, 504];

/** What changes when a file does: its ETag, or the time of its last change. Empty where a server tells neither. */
export function versionOf({ headers }: Response): string {
  const tag = headers.get('etag') ?? headers.get('last-modified') ?? '';
  // the same file compressed on its way, as servers mark it
  return tag.replace(/^W\//, '').replace(/[-;](?:gzip|br|zstd|deflate)"$/, '"');
}

/** The part that an answer holds: bytes [from, to) of `total`. Null where the server does not say, or does not let it be seen. */
export function partOf({ headers }: Response): { from: number; to: number; total: number } | null {
  const told = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(headers.get('content-range') ?? '');
  if (!told) return null;
  const [from, last, total] = told.slice(1).map(Number) as [number, number, number];
  return from <= last && last < total ? { from, to: last + 1, total } : null;
}

/** Bytes of the whole file that an answer declares; NaN where it does not, or where they are those of a compressed form. */
export function declaredSize({ headers }: Response): number {
  const length = headers.get('content-encoding') ? null : headers.get('content-length');
  return length === null ? NaN : Number(length);
}

/** A page that a server has for whatever it does not know, or for those who are not logged in. */
export const isPage = ({ ok, headers }: Response, url: string): boolean =>
  ok && /^text\/html/i.test(headers.get('content-type') ?? '') && !/\.html?$/i.test(new URL(url).pathname);

/** What an answer that brings no file says, for messages. */
export function saidBy(answer: Response): string {
  const { status, statusText, ok, redirected, url } = answer;
  const from = redirected ? ` from ${new URL(url).host}` : '';
  if (ok)
    return `the server sent a page of HTML${from} and not the file: a page to log in, or its page for addresses that it does not know`;
  const what = `the server answers ${`${status} ${statusText}`.trim()}${from}`;
  if (status === 401) return `${what}: it wants to know who asks (option token)`;
  return status === 403 ? `${what}: it refuses the file, or has none` : what;
}

/** Why a request that was never answered was not, as far as a page can know. */
export function unreached(url: string, error: unknown): string {
  const { message } = error as Error;
  return (
    `${url} cannot be reached (${message}): there is no network or no such server, or the server, or one that it redirects to, ` +
    `does not let pages of ${globalThis.location.origin} read it (Access-Control-Allow-Origin)`
  );
}

/** Waits, unless it is stopped. */
export function wait(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((done) => {
    const end = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', end);
      done();
    };
    const timer = setTimeout(end, milliseconds);
    signal?.addEventListener('abort', end, { once: true });
    if (signal?.aborted) end();
  });
}

/** Milliseconds before the next of some tries. */
export const pause = (tries: number): number => 200 * 2 ** tries;

/** What an answer asks to be waited for, in milliseconds; 0 where it does not say. */
function retryAfter({ headers }: Response): number {
  const asked = headers.get('retry-after') ?? '';
  if (/^\d+$/.test(asked)) return 1000 * Number(asked);
  return Math.max(0, Date.parse(asked) - Date.now()) || 0;
}

/** The bytes that a request is for, the last one included; null for all. */
type Range = readonly [number, number] | null;

export async function ask(
  url: string,
  { signal, token }: Download,
  range: Range,
  method: 'GET' | 'HEAD' = 'GET',
): Promise<Response> {
  throwIfStopped(signal);
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

/**
 * As ask(), and again after a while where the server is busy, as long as it asks for.
 * @throws CheckpointError where it wants to be left alone for long, or stays busy; what fetch() throws where it is not reached
 */
export async function askPatiently(url: string, download: Download, range: Range): Promise<Response> {
  const { signal } = download;
  for (let tries = 1; ; tries++) {
    const answer = await ask(url, download, range);
    const { status } = answer;
    if (!PASSING.includes(status)) return answer;
    const asked = retryAfter(answer);
    const said = saidBy(answer);
    await answer.body?.cancel();
    if (asked > MOST_PATIENCE || tries === TRIES) {
      const when = asked > 0 ? `in ${Math.ceil(asked / 1000)} s, as it asks` : 'later';
      throw new CheckpointError(
        `${url}: ${said}${tries > 1 ? `, ${tries} times` : ''}. Load again ${when}; what has arrived is kept.`,
        { file: url, status, retry_after: asked / 1000 },
      );
    }
    await wait(Math.max(asked, pause(tries)), signal);
    throwIfStopped(signal);
  }
}
