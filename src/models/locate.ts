/** Where a model lies: a folder, this package, or the hub. */
import * as fs from 'node:fs';
import type { ModelPart } from '../checkpoints/hub.js';
import { isRepoId } from '../checkpoints/hub_cache.js';
import { HUB_NAMES, type HubOptions } from '../checkpoints/hub_options.js';
import { resolveModel } from './checkpoints.js';
import { packagedModel } from './packaged_model.js';

/**
 * The folder of a model. A folder of that name comes first, then the model that travels in this package, then the hub. What is
 * none of them is given back, for its reader to complain about.
 * @param options those of the hub among them are read
 * @throws as resolveModel
 */
export async function locateModel(name: string, options: HubOptions, part: ModelPart = 'model'): Promise<string> {
  const elsewhere = isRepoId(name) && !fs.existsSync(name);
  if (!elsewhere) return name;
  const given = HUB_NAMES.map((key) => [key, options[key]] as const).filter(([, value]) => value !== undefined);
  const hub = Object.fromEntries(given) as HubOptions;
  return packagedModel(name) ?? (await resolveModel(name, hub, part));
}
