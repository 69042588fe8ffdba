/** One repository of the hub, of a model or of a data set: what it lists, its files brought into the cache, failures in our words. */
import * as fs from 'node:fs';
import * as path from 'node:path';
import type * as Hub from '@huggingface/hub';
import { ArgumentError, CheckpointError, Mamba2Error } from '../base/errors.js';
import { writeFileAtomic } from '../base/whole_files.js';
import { checkRelative, COMMIT, hubCacheRoot, hubToken, linkBlob, repoFolder, type RepoType } from './hub_cache.js';
import { downloadBlob, type HubFile, statusError } from './hub_download.js';
import type { HubOptions } from './hub_options.js';
import { apiFetch, throughProxy } from './hub_request.js';

export interface Repository {
  readonly type: RepoType;
  readonly repo: string;
  readonly revision: string;
  /** Its folder in the cache. */
  readonly folder: string;
  readonly endpoint: string;
  readonly token: string | undefined;
  readonly options: HubOptions;
}

/** What a revision holds. */
export interface Listing {
  readonly commit: string;
  readonly files: ReadonlyMap<string, HubFile>;
}

/**
 * A repository by its name, with the token and the address that the options or the environment have.
 * @throws ArgumentError for a malformed name, revision or token
 */
export function repositoryOf(type: RepoType, repo: string, revision: string, options: HubOptions): Repository {
  const token = options.token ?? hubToken();
  if (token !== undefined && !/^[\x21-\x7e]+$/.test(token))
    throw new ArgumentError(
      'The hub access token (token or HF_TOKEN) holds characters that no token has: spaces, or other than ASCII.',
      { option: 'token' },
    );
  const endpoint = (options.endpoint ?? (process.env.HF_ENDPOINT || 'https://huggingface.co')).replace(/\/+$/, '');
  const folder = repoFolder(options.cache_dir ?? hubCacheRoot(), repo, type);
  return { type, repo, revision: checkRelative(revision, 'The revision'), folder, endpoint, token, options };
}

/** Hugging Face's client, imported when first needed. */
async function client(): Promise<typeof Hub> {
  try {
    return await import('@huggingface/hub');
  } catch (error) {
    throw new CheckpointError(
      'Models and data sets are fetched from the hub with the package @huggingface/hub, which is not installed. Run `npm install @huggingface/hub`, or name local files.',
      {},
      { cause: error },
    );
  }
}

/** The commit of a revision, and the files that it has. */
export async function listing({ type, repo, revision, endpoint, token, options }: Repository): Promise<Listing> {
  const hub = await client();
  // the token is not given to the client: it would show it to any host that a page's link names
  const access = { hubUrl: endpoint, fetch: apiFetch({ endpoint, token, signal: options.signal }) };
  const asked = { name: repo, revision, ...access };
  const { sha } =
    type === 'model'
      ? await hub.modelInfo({ ...asked, additionalFields: ['sha'] })
      : await hub.datasetInfo({ ...asked, additionalFields: ['sha'] });
  if (!COMMIT.test(sha ?? ''))
    throw new CheckpointError(`${endpoint} gave no commit for ${repo} at ${revision}.`, { repo, revision, got: sha });
  const files = new Map<string, HubFile>();
  for await (const entry of hub.listFiles({
    repo: { type, name: repo },
    revision: sha,
    recursive: type === 'dataset',
    ...access,
  })) {
    // prettier-ignore
    const checksum = entry.lfs?.oid ?? entry.oid ?? '';
    if (entry.type !== 'file' || !/^([0-9a-f]{40}|[0-9a-f]{64})$/.test(checksum)) continue;
    files.set(entry.path, {
      path: checkRelative(entry.path, 'The file'),
      size: entry.lfs?.size ?? entry.size,
      checksum,
    });
  }
  return { commit: sha, files };
}

/** Where a file of a commit is in the cache, whether it is there or not. */
export function placeOf({ folder }: Repository, commit: string, name: string): string {
  return path.join(folder, 'snapshots', commit, ...name.split('/'));
}

/** Brings a file into the cache, unless it is there. @param onBytes called with the bytes of it on disk @returns its path */
export async function fetchFile(
  target: Repository,
  commit: string,
  file: HubFile,
  onBytes: (bytes: number) => void,
): Promise<string> {
  const { type, repo, folder, endpoint, token, options } = target;
  const place = placeOf(target, commit, file.path);
  if (!fs.existsSync(place)) {
    const address = file.path.split('/').map(encodeURIComponent).join('/');
    const of = type === 'model' ? repo : `datasets/${repo}`;
    await downloadBlob(`${endpoint}/${of}/resolve/${commit}/${address}`, folder, file, {
      access: { endpoint, token, signal: options.signal },
      onWait: options.on_warning,
      retry_delay: options.retry_delay,
      onBytes,
    });
    await linkBlob(folder, commit, file.path, file.checksum);
  }
  onBytes(file.size);
  return place;
}

/** Remembers the commit that a branch or a tag was last seen at. */
export async function rememberCommit({ revision, folder }: Repository, commit: string): Promise<void> {
  if (revision === commit) return;
  const ref = path.join(folder, 'refs', ...revision.split('/'));
  await fs.promises.mkdir(path.dirname(ref), { recursive: true });
  await writeFileAtomic(ref, commit);
}

/** Whether an error says that the network failed: no connection, no answer in time, or a broken one. */
function unreachable(error: unknown): boolean {
  const { name, message } = error as Error;
  return name === 'TimeoutError' || (error instanceof TypeError && /fetch|terminated/i.test(message));
}

/** An error of the client as one of ours; null when it says that the network failed. */
function translated(error: unknown, what: string): Error | null {
  if (error instanceof Mamba2Error || (error as Error).name === 'AbortError') return error as Error;
  const { statusCode: status, url } = error as { statusCode?: number; url?: string };
  if (status === undefined) return unreachable(error) ? null : (error as Error);
  return status === 429 || status >= 500 ? null : statusError(status, url ?? '', what);
}

/** How a call to the hub is spoken of. */
export interface Asking<T> {
  /** Begins the messages of errors: "There is no folder X, and …". Default: nothing. */
  readonly before?: string;
  /** What the cache has, where the network fails. */
  readonly cached: T | null;
  /** What to name instead: 'a local folder'. */
  readonly instead: string;
}

/**
 * What a call to the hub gives; where the network fails, what the cache has.
 * @throws CheckpointError in our words, and what the call throws of its own
 */
export async function askHub<T>(
  target: Repository,
  { before = '', cached, instead }: Asking<T>,
  ask: () => Promise<T>,
): Promise<T> {
  // prettier-ignore
  const { repo, revision, endpoint, options } = target;
  try {
    return await ask();
  } catch (error) {
    const ours = translated(error, `${before}${before ? 'of ' : 'Of '}${repo} (revision ${revision}) on the hub`);
    if (ours) throw ours;
    const why = error instanceof Error && error.cause instanceof Error ? error.cause.message : String(error);
    if (cached !== null) {
      options.on_warning?.(`${endpoint} cannot be reached (${why}); ${repo} is taken from the cache as last seen.`);
      return cached;
    }
    throw new CheckpointError(
      `${before}${endpoint} cannot be reached to fetch ${before ? 'it' : repo}${throughProxy()}: ${why}. Check the network, or name ${instead}.`,
      { repo, revision, endpoint },
      { cause: error },
    );
  }
}
