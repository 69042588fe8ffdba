/**
 * The cache folder that Python's huggingface_hub uses, so that a model is on disk once:
 *
 *     <root>/models--org--name/blobs/<checksum>             the files
 *                              snapshots/<commit>/<file>    links to them
 *                              refs/<revision>              the commit that a branch or tag was last seen at
 */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { ArgumentError } from '../base/errors.js';
import { quote } from '../base/quote.js';

type Environment = Readonly<Record<string, string | undefined>>;

/** A commit of a repository. */
export const COMMIT = /^[0-9a-f]{40}$/;

/** Hugging Face's home: HF_HOME, or `huggingface` in the user's cache folder. */
function home(env: Environment): string {
  const cache = env.XDG_CACHE_HOME || path.join(os.homedir(), '.cache');
  return expand(env.HF_HOME || path.join(cache, 'huggingface'));
}

function expand(dir: string): string {
  return dir === '~' || dir.startsWith('~/') ? path.join(os.homedir(), dir.slice(1)) : dir;
}

/** The cache's root, by the variables that huggingface_hub reads: HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME, XDG_CACHE_HOME. */
export function hubCacheRoot(env: Environment = process.env): string {
  return expand(env.HF_HUB_CACHE || env.HUGGINGFACE_HUB_CACHE || path.join(home(env), 'hub'));
}

/** Is the network off limits? HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is 1, ON, YES or TRUE. */
export function isOffline(env: Environment = process.env): boolean {
  const on = (value: string | undefined): boolean => /^(1|on|yes|true)$/i.test(value ?? '');
  return on(env.HF_HUB_OFFLINE) || on(env.TRANSFORMERS_OFFLINE);
}

/** The user's access token: HF_TOKEN, HUGGING_FACE_HUB_TOKEN, or what `hf auth login` saved; undefined when there is none. */
export function hubToken(env: Environment = process.env): string | undefined {
  const named = (env.HF_TOKEN || env.HUGGING_FACE_HUB_TOKEN || '').trim();
  if (named) return named;
  try {
    return fs.readFileSync(env.HF_TOKEN_PATH || path.join(home(env), 'token'), 'utf8').trim() || undefined;
  } catch {
    return undefined;
  }
}

/** Is this the name of a repository, `org/name` or `name`? */
export function isRepoId(name: string): boolean {
  return (
    name.length <= 96 &&
    /^([A-Za-z0-9][\w.-]*\/)?[A-Za-z0-9][\w.-]*$/.test(name) &&
    !/--|\.\.|[.-](\/|$)/.test(name) &&
    !name.endsWith('.git')
  );
}

/** What a repository holds. */
export type RepoType = 'model' | 'dataset';

/** Folder of a repository in the cache. @throws ArgumentError when `repo` is no repository's name */
export function repoFolder(root: string, repo: string, type: RepoType = 'model'): string {
  if (!isRepoId(repo))
    throw new ArgumentError(`${quote(repo)} is no name of a ${type} on the hub; expected "org/name".`, {
      got: repo,
    });
  return path.join(root, [`${type}s`, ...repo.split('/')].join('--'));
}

/** @throws ArgumentError when a revision or a file's path would leave its folder */
export function checkRelative(name: string, what: string): string {
  const parts = name.split('/');
  if (
    name === '' ||
    /[\\\0:]/.test(name) ||
    path.isAbsolute(name) ||
    parts.some((p) => p === '' || p === '.' || p === '..')
  )
    throw new ArgumentError(`${what} ${quote(name)} is not a relative path.`, { got: name });
  return name;
}

/**
 * The snapshot of a revision, if the cache has it.
 * @param revision branch, tag or commit
 * @returns its folder and commit; null when it is not there
 */
export function cachedSnapshot(folder: string, revision: string): { dir: string; commit: string } | null {
  checkRelative(revision, 'The revision');
  let commit = revision;
  if (!COMMIT.test(revision)) {
    const ref = path.join(folder, 'refs', revision);
    if (!fs.existsSync(ref)) return null;
    commit = fs.readFileSync(ref, 'utf8').trim();
    if (!COMMIT.test(commit)) return null;
  }
  const dir = path.join(folder, 'snapshots', commit);
  return fs.existsSync(dir) ? { dir, commit } : null;
}

/** Makes `snapshots/<commit>/<file>` refer to a blob: a relative link, or a copy where links are not allowed (Windows). */
export async function linkBlob(folder: string, commit: string, file: string, checksum: string): Promise<string> {
  const target = path.join(folder, 'snapshots', commit, ...checkRelative(file, 'The file').split('/'));
  const blob = path.join(folder, 'blobs', checksum);
  await fs.promises.mkdir(path.dirname(target), { recursive: true });
  if (fs.existsSync(target)) return target;
  await fs.promises.rm(target, { force: true });
  try {
    await fs.promises.symlink(path.relative(path.dirname(target), blob), target);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST') return target;
    if (code !== 'EPERM' && code !== 'EACCES' && code !== 'ENOSYS') throw error;
    await fs.promises.copyFile(blob, target);
  }
  return target;
}
