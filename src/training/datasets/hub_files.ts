/** The files of a data set on the hub: listed, and brought into the cache one by one. */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { CheckpointError } from '../../base/errors.js';
import { parseJson, readTextFileIfThere } from '../../base/text_files.js';
import { writeFileAtomic } from '../../base/whole_files.js';
import { checkRelative, COMMIT, isOffline } from '../../checkpoints/hub_cache.js';
import type { HubFile } from '../../checkpoints/hub_download.js';
import type { HubOptions } from '../../checkpoints/hub_options.js';
import {
  askHub,
  fetchFile,
  type Listing,
  listing,
  placeOf,
  rememberCommit,
  type Repository,
  repositoryOf,
} from '../../checkpoints/hub_repository.js';

/** The branch where the hub keeps data sets as parquet. */
export const CONVERTED = 'refs/convert/parquet';

const ELSEWHERE = 'local files (data_files)';

/** Lists of files are kept beside the snapshots, so that offline it is known what belongs to a split. */
function listingFile({ folder }: Repository, commit: string): string {
  return path.join(folder, 'listings', `${commit}.json`);
}

function isHubFile(value: unknown): value is HubFile {
  const { path: name, size, checksum } = (value ?? {}) as Partial<HubFile>;
  return typeof name === 'string' && Number.isSafeInteger(size) && /^([0-9a-f]{40}|[0-9a-f]{64})$/.test(checksum ?? '');
}

/** The list of a commit as last seen; null where there is none, or it is damaged. */
async function keptListing(target: Repository): Promise<Listing | null> {
  let commit = target.revision;
  if (!COMMIT.test(commit)) {
    const ref = path.join(target.folder, 'refs', ...commit.split('/'));
    commit = (await readTextFileIfThere(ref, CheckpointError))?.trim() ?? '';
    if (!COMMIT.test(commit)) return null;
  }
  const file = listingFile(target, commit);
  const text = await readTextFileIfThere(file, CheckpointError);
  if (text === null) return null;
  try {
    const files = parseJson(text, file, CheckpointError);
    if (!Array.isArray(files) || !files.every(isHubFile)) return null;
    for (const { path: name } of files) checkRelative(name, 'The file');
    return { commit, files: new Map(files.map((each) => [each.path, each])) };
  } catch {
    return null;
  }
}

async function asked(target: Repository): Promise<Listing> {
  const found = await listing(target);
  const file = listingFile(target, found.commit);
  await fs.promises.mkdir(path.dirname(file), { recursive: true });
  await writeFileAtomic(file, JSON.stringify([...found.files.values()]));
  await rememberCommit(target, found.commit);
  return found;
}

/** A revision of a data set: its files, fetched when they are needed. */
export class HubFiles {
  private constructor(
    private readonly target: Repository,
    private readonly listing: Listing,
    private readonly offline: boolean,
  ) {}

  /**
   * @returns null where the data set has no such revision, or the cache does not have it offline, and that is allowed
   * @param needed whether that is an error
   * @throws CheckpointError as resolveModel does
   */
  static async open(repo: string, revision: string, options: HubOptions, needed: boolean): Promise<HubFiles | null> {
    const target = repositoryOf('dataset', repo, revision, options);
    const kept = await keptListing(target);
    const offline = options.local_files_only ?? isOffline();
    if (kept && (offline || COMMIT.test(revision))) return new HubFiles(target, kept, offline);
    if (offline) {
      if (!needed) return null;
      throw new CheckpointError(
        `The cache ${target.folder} does not have the data set ${repo} (revision ${revision}); the network was not asked (local_files_only or HF_HUB_OFFLINE).`,
        { repo, revision, folder: target.folder },
      );
    }
    try {
      const found = await askHub(target, { cached: kept, instead: ELSEWHERE }, () => asked(target));
      return new HubFiles(target, found, offline);
    } catch (error) {
      if (!needed && error instanceof CheckpointError && error.data['status'] === 404) return null;
      throw error;
    }
  }

  get names(): string[] {
    return [...this.listing.files.keys()];
  }

  /** Functions that bring files into the cache, each when called. Progress counts all of them together. */
  fetching(names: readonly string[]): (() => Promise<string>)[] {
    const { target } = this;
    const files = names.map((name) => this.listing.files.get(name)!);
    const total = files.reduce((sum, { size }) => sum + size, 0);
    return files.map((file, i) => {
      const before = files.slice(0, i).reduce((sum, { size }) => sum + size, 0);
      return () => this.fetch(file, (bytes) => target.options.on_progress?.({ file: file.path, written: before + bytes, total })); // prettier-ignore
    });
  }

  private fetch(file: HubFile, onBytes: (bytes: number) => void): Promise<string> {
    const { target, offline, listing: found } = this;
    const place = placeOf(target, found.commit, file.path);
    if (offline && !fs.existsSync(place))
      throw new CheckpointError(
        `The cache ${target.folder} does not have ${file.path} of the data set ${target.repo}; the network was not asked (local_files_only or HF_HUB_OFFLINE).`,
        { repo: target.repo, file: file.path },
      );
    return askHub(target, { cached: null, instead: ELSEWHERE }, () => fetchFile(target, found.commit, file, onBytes));
  }
}
