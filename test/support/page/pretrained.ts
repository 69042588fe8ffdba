/** Opening a checkpoint in a page: its weights are read at once afterwards, so that they are held first. */
import { loadCheckpoint as load, type LoadedCheckpoint } from '../../../src/models/mamba2/pretrained.js';

export async function loadCheckpoint(...args: Parameters<typeof load>): Promise<LoadedCheckpoint> {
  const loaded = await load(...args);
  for (const name of loaded.source.tensors.keys()) await loaded.source.hold?.(name);
  return loaded;
}
