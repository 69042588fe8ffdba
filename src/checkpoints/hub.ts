/**
 * Models by name: `org/name` becomes a local folder, in the cache that Python's huggingface_hub shares.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { CheckpointError } from '../base/errors.js';
import { isCompanion } from './convert.js';
import { readTextIfThere } from '../base/files.js';
import { cachedSnapshot, checkRelative, COMMIT, hubCacheRoot, isOffline, isRepoId, repoFolder } from './hub_cache.js'; // prettier-ignore
import type { HubOptions } from './hub_options.js';
import { askHub, fetchFile, listing, rememberCommit, type Repository, repositoryOf } from './hub_repository.js'; // prettier-ignore
import type { ModelFormat } from './model_format.js';
import { findWeights, judgeConfig, WEIGHT_FILES } from './open.js';
import { fileProgress } from './progress.js';
import { parseIndex } from './shards.js';
import { plain } from '../base/quote.js';

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
  const weights = await findWeights(dir);
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
  const { repo, revision, folder, options } = target;
  const { commit, files } = await listing(target);
  const wanted = wantedFiles(target, part, [...files.keys()]);
  const weights = part === 'model' ? wanted.at(-1)! : null;
  let total = wanted.reduce((sum, name) => sum + files.get(name)!.size, 0);
  let before = 0;
  const get = async (name: string): Promise<void> => {
    const file = files.get(name);
    if (!file)
      throw new CheckpointError(
        `${repo} at ${revision}: ${weights} names ${plain(name)}, which is not in the repository.`,
        {
          repo,
          file: name,
        },
      );
    const tell = fileProgress(options.progress_callback, repo, name);
    await fetchFile(target, commit, file, (bytes) => {
      options.on_progress?.({ file: name, written: before + bytes, total });
      tell(bytes, file.size);
    });
    before += file.size;
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
  await rememberCommit(target, commit);
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
  const asking = { before: `There is no folder ${name}, and `, cached: usable, instead: 'a local folder' };
  const target = repositoryOf('model', name, revision, options);
  return askHub(target, asking, () => fetchPart(model, target, part));
}
