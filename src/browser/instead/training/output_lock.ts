/** One training run at a time in a folder of the page's private files, by the browser's own locks. */
import { TrainingError } from '../../../base/errors.js';

export async function aloneIn<T>(folder: string, work: () => Promise<T>): Promise<T> {
  const { locks } = globalThis.navigator;
  if (!locks) return work();
  return await locks.request(`tfjs-mamba2 ${folder}`, { ifAvailable: true }, async (lock) => {
    if (lock) return work();
    throw new TrainingError(`${folder}: another page or worker trains into this folder. Choose another output_dir.`, {
      output_dir: folder,
    });
  });
}
