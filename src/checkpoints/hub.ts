/**
 * Models by name: `org/name` becomes a local folder, in the cache that Python's huggingface_hub shares.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import type * as Hub from '@huggingface/hub';
import { ArgumentError, CheckpointError, Mamba2Error } from '../base/errors.js';
import { isCompanion } from './convert.js';
import { readTextIfThere } from '../base/files.js';
import { writeFileAtomic } from '../base/whole_files.js';
import { cachedSnapshot, checkRelative, COMMIT, hubCacheRoot, hubToken, isOffline, isRepoId, linkBlob, repoFolder } from './hub_cache.js'; // prettier-ignore
import { downloadBlob, statusError, type DownloadOptions, type HubFile } from './hub_download.js';
import { apiFetch, throughProxy } from './hub_request.js';
import type { ModelFormat } from './model_format.js';
import { findWeights, judgeConfig, WEIGHT_FILES } from './open.js';
import { parseIndex } from './shards.js';

/** Options that name a model on the hub; those of Python's from_pretrained. */
export interface HubOptions {
  /** branch, tag or commit; default 'main' */
  revision?: string;
  /** root of the cache; default as huggingface_hub: HF_HUB_CACHE, HF_HOME/hub, ~/.cache/huggingface/hub */
  cache_dir?: string;
  /** true never uses the network; default: HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE */
  local_files_only?: boolean;
  /** access token; default: HF_TOKEN, or the one that `hf auth login` saved */
  token?: string;
  /** the hub's address; default: HF_ENDPOINT or https://huggingface.co */
  endpoint?: string;
  signal?: AbortSignal;
  /** called as bytes arrive, for all files together */
  on_progress?: (progress: { file: string; written: number; total: number }) => void;
  /** called when the network fails and the cache serves instead */
  on_warning?: (message: string) => void;
  /** milliseconds before a broken download is tried again; default 500 */
  retry_delay?: number;
}

/** What of a model is wanted: all, its configuration alone, or its tokenizer alone. */
export type ModelPart = 'model' | 'config' | 'tokenizer';

const CONFIG_FILES = ['config.json', 'params.json', 'model.json'];
/** Files of which one makes a tokenizer. */
const TOKENIZER_FILES = [
  'tokenizer.json',
  'tokenizer.model',
  'tokenizer.model.v3',
  'tokenizer.model.v2',
  'tokenizer.model.v1',
];
const isTokenizerFile = (name: string): boolean => isCompanion(name) && name !== 'generation_config.json';

/** Does a snapshot hold what is wanted? Weights are fetched last, so where they are the rest is there too. */
async function isComplete(dir: string, part: ModelPart): Promise<boolean> {
  const has = (name: string): boolean => fs.existsSync(path.join(dir, name));
  if (part === 'tokenizer') return TOKENIZER_FILES.some(has);
  if (!CONFIG_FILES.some(has)) return false;
  if (part === 'config') return true;
  const weights = findWeights(dir);
  if (weights === null) return false;
  const parts = await partsOf(weights);
  return parts.every((name) => fs.existsSync(path.join(dir, name)));
}

/** The further files that an index or a TensorFlow.js manifest names. */
async function partsOf(file: string): Promise<string[]> {
  const name = path.basename(file);
  if (!name.endsWith('.json')) return [];
  const text = (await readTextIfThere(file)) ?? '';
  if (name !== 'model.json') return [...new Set(parseIndex(text, file).values())];
  try {
    const { weightsManifest } = JSON.parse(text) as { weightsManifest: { paths: string[] }[] };
    return weightsManifest.flatMap(({ paths }) => paths);
  } catch (error) {
    throw new CheckpointError(`${file} has no weightsManifest.`, { file }, { cause: error });
  }
}

/** Hugging Face's client, imported when first needed. */
async function client(): Promise<typeof Hub> {
  try {
    return await import('@huggingface/hub');
  } catch (error) {
    throw new CheckpointError(
      'Models are fetched from the hub with the package @huggingface/hub, which is not installed. Run `npm install @huggingface/hub`, or name a local folder.',
      {},
      { cause: error },
    );
  }
}

/** An error of the client as one of ours; null when it says that the network failed. */
function translated(error: unknown, what: string): Error | null {
  if (error instanceof Mamba2Error || (error as Error).name === 'AbortError') return error as Error;
  const { statusCode: status, url } = error as { statusCode?: number; url?: string };
  if (status === undefined) return unreachable(error) ? null : (error as Error);
  return status === 429 || status >= 500 ? null : statusError(status, url ?? '', what);
}

/** Whether an error says that the network failed: no connection, no answer in time, or a broken one. */
function unreachable(error: unknown): boolean {
  const { name, message } = error as Error;
  return name === 'TimeoutError' || (error instanceof TypeError && /fetch|terminated/i.test(message));
}

interface Repository {
  readonly repo: string;
  readonly revision: string;
  readonly folder: string;
  readonly endpoint: string;
  readonly token: string | undefined;
  readonly options: HubOptions;
}

/** The commit of a revision, and the files that it has. */
async function listing({
  repo,
  revision,
  endpoint,
  token,
  options,
}: Repository): Promise<{ commit: string; files: Map<string, HubFile> }> {
  const hub = await client();
  // the token is not given to the client: it would show it to any host that a page's link names
  const access = { hubUrl: endpoint, fetch: apiFetch({ endpoint, token, signal: options.signal }) };
  const info = await hub.modelInfo({ name: repo, revision, additionalFields: ['sha'], ...access });
  if (!COMMIT.test(info.sha ?? ''))
    throw new CheckpointError(`${endpoint} gave no commit for ${repo} at ${revision}.`, {
      repo,
      revision,
      got: info.sha,
    });
  const files = new Map<string, HubFile>();
  for await (const entry of hub.listFiles({ repo, revision: info.sha, ...access })) {
    const checksum = entry.lfs?.oid ?? entry.oid ?? '';
    if (entry.type !== 'file' || !/^([0-9a-f]{40}|[0-9a-f]{64})$/.test(checksum)) continue;
    files.set(entry.path, {
      path: checkRelative(entry.path, 'The file'),
      size: entry.lfs?.size ?? entry.size,
      checksum,
    });
  }
  return { commit: info.sha, files };
}

/** The files of a repository that are fetched for a part of a model, the weights last. @throws CheckpointError when what is needed is not there */
function wantedFiles({ repo, revision }: Repository, part: ModelPart, there: readonly string[]): string[] {
  const refuse = (why: string): never => {
    throw new CheckpointError(`${repo} at ${revision} ${why}.`, { repo, revision, part });
  };
  if (part === 'tokenizer') {
    if (!TOKENIZER_FILES.some((name) => there.includes(name)))
      refuse(
        `has no tokenizer: none of ${TOKENIZER_FILES.join(', ')} is there. state-spaces models use that of EleutherAI/gpt-neox-20b: name it as the tokenizer (option tokenizer, --tokenizer)`,
      );
    return there.filter(isTokenizerFile);
  }
  const weights = WEIGHT_FILES.find((name) => there.includes(name));
  const configs = CONFIG_FILES.filter((name) => there.includes(name));
  if (configs.length === 0) refuse('is no model that can be loaded: it has neither config.json nor params.json');
  if (part === 'config') return configs;
  if (!weights) refuse(`is no model that can be loaded: it has none of ${WEIGHT_FILES.join(', ')}`);
  return [...configs, ...there.filter(isCompanion), weights!];
}

/** Fetches what is needed: small files first, then, if the configuration is one of ours, one set of weights. */
async function fetchPart(model: ModelFormat, target: Repository, part: ModelPart): Promise<string> {
  const { repo, revision, folder, endpoint, token, options } = target;
  const { commit, files } = await listing(target);
  const wanted = wantedFiles(target, part, [...files.keys()]);
  const weights = part === 'model' ? wanted.at(-1)! : null;
  let total = wanted.reduce((sum, name) => sum + files.get(name)!.size, 0);
  let before = 0;
  const get = async (name: string): Promise<void> => {
    const file = files.get(name);
    if (!file)
      throw new CheckpointError(`${repo} at ${revision}: ${weights} names ${name}, which is not in the repository.`, {
        repo,
        file: name,
      });
    const link = path.join(folder, 'snapshots', commit, ...name.split('/'));
    if (!fs.existsSync(link)) {
      const download: DownloadOptions = {
        access: { endpoint, token, signal: options.signal },
        retry_delay: options.retry_delay,
        onBytes: (bytes) => options.on_progress?.({ file: name, written: before + bytes, total }),
      };
      const address = name.split('/').map(encodeURIComponent).join('/');
      await downloadBlob(`${endpoint}/${repo}/resolve/${commit}/${address}`, folder, file, download);
      await linkBlob(folder, commit, name, file.checksum);
    }
    before += file.size;
    options.on_progress?.({ file: name, written: before, total });
  };
  const dir = path.join(folder, 'snapshots', commit);
  for (const name of wanted) {
    // a wrong kind of model is told from its configuration, before the weights
    if (name === weights && name !== 'model.json') await judgeConfig(model, dir);
    await get(name);
  }
  const parts = weights ? await partsOf(path.join(dir, weights)) : [];
  total += parts.reduce((sum, name) => sum + (files.get(name)?.size ?? 0), 0);
  for (const name of parts) await get(name);
  if (revision !== commit) {
    const ref = path.join(folder, 'refs', ...checkRelative(revision, 'The revision').split('/'));
    await fs.promises.mkdir(path.dirname(ref), { recursive: true });
    await writeFileAtomic(ref, commit);
  }
  return dir;
}

/**
 * The local folder of a model: the folder itself when there is one of that name, else a snapshot in the hub's cache,
 * fetched if need be.
 * @param name folder, or `org/name` on the hub
 * @param part what of it is wanted; default all
 * @throws CheckpointError when there is neither, access is denied, the network is off limits or fails and the cache does
 *   not have it, or a checksum is wrong; ArgumentError for a malformed name, revision or token
 */
export async function resolveModel(
  model: ModelFormat,
  name: string,
  options: HubOptions = {},
  part: ModelPart = 'model',
): Promise<string> {
  if (fs.existsSync(name) && fs.statSync(name).isDirectory()) return name;
  if (!isRepoId(name))
    throw new CheckpointError(
      `There is no folder ${name}, and it is no name of a model on the hub ("org/name") either.`,
      { file: name, code: 'ENOENT' },
    );
  const revision = checkRelative(options.revision ?? 'main', 'The revision');
  const folder = repoFolder(options.cache_dir ?? hubCacheRoot(), name);
  const cached = cachedSnapshot(folder, revision);
  const usable = cached !== null && (await isComplete(cached.dir, part)) ? cached.dir : null;
  if (usable && COMMIT.test(revision)) return usable;
  if (options.local_files_only ?? isOffline()) {
    if (usable) return usable;
    throw new CheckpointError(
      `There is no folder ${name}, and the cache ${folder} has no whole snapshot of revision ${revision}; the network was not asked (local_files_only or HF_HUB_OFFLINE).`,
      { repo: name, revision, folder },
    );
  }
  const token = options.token ?? hubToken();
  if (token !== undefined && !/^[\x21-\x7e]+$/.test(token))
    throw new ArgumentError(
      'The hub access token (token or HF_TOKEN) holds characters that no token has: spaces, or other than ASCII.',
      { option: 'token' },
    );
  const endpoint = (options.endpoint ?? (process.env.HF_ENDPOINT || 'https://huggingface.co')).replace(/\/+$/, '');
  try {
    return await fetchPart(model, { repo: name, revision, folder, endpoint, token, options }, part);
  } catch (error) {
    const ours = translated(error, `There is no folder ${name}, and of ${name} (revision ${revision}) on the hub`);
    if (ours) throw ours;
    const why = error instanceof Error && error.cause instanceof Error ? error.cause.message : String(error);
    if (usable) {
      options.on_warning?.(`${endpoint} cannot be reached (${why}); ${name} is taken from the cache as last seen.`);
      return usable;
    }
    throw new CheckpointError(
      `There is no folder ${name}, and ${endpoint} cannot be reached to fetch it${throughProxy()}: ${why}. Check the network, or name a local folder.`,
      { repo: name, revision, endpoint },
      { cause: error },
    );
  }
}
