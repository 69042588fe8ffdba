/** Where a model lies: a folder, this package, or the hub. */
import * as fs from 'node:fs';
import type { HubOptions, ModelPart } from '../checkpoints/hub.js';
import { isRepoId } from '../checkpoints/hub_cache.js';
import { resolveModel } from './checkpoints.js';
import { packagedModel } from './packaged_model.js';

const HUB_KEYS = [
  'revision',
  'cache_dir',
  'local_files_only',
  'token',
  'endpoint',
  'signal',
  'on_progress',
  'retry_delay',
] as const satisfies readonly (keyof HubOptions)[];

/**
 * For functions that take a folder or a name together with options of their own: the folder, and those options without
 * the hub's. A folder comes first, then the model that travels in this package, then the hub. What is none of them is given back,
 * for its reader to complain about.
 * @throws as resolveModel
 */
export async function locateModel<O extends object>(
  name: string,
  options: O & HubOptions,
  part: ModelPart = 'model',
): Promise<{ dir: string; rest: Omit<O, (typeof HUB_KEYS)[number]> }> {
  const elsewhere = isRepoId(name) && !fs.existsSync(name);
  const dir = elsewhere ? (packagedModel(name) ?? (await resolveModel(name, options, part))) : name;
  const rest = Object.fromEntries(
    Object.entries(options).filter(([key]) => !(HUB_KEYS as readonly string[]).includes(key)),
  );
  return { dir, rest: rest as Omit<O, (typeof HUB_KEYS)[number]> };
}
