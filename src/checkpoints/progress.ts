/** Telling of files on their way as transformers.js does. */
import type { DownloadProgress } from './hub_options.js';

/**
 * Tells of one file: that it begins, how far it is, that it is done.
 * @param name of the model, as it was asked for
 * @returns to be called with bytes that are there and bytes in all
 */
export function fileProgress(
  callback: ((progress: DownloadProgress) => void) | undefined,
  name: string,
  file: string,
): (loaded: number, total: number) => void {
  let begun = false;
  let done = false;
  return (loaded, total) => {
    if (!callback || done) return;
    if (!begun) for (const status of ['initiate', 'download'] as const) callback({ status, name, file });
    begun = true;
    callback({ status: 'progress', name, file, loaded, total, progress: total ? (loaded / total) * 100 : 100 });
    done = loaded === total;
    if (done) callback({ status: 'done', name, file });
  };
}
