/** Who is told of the files of a folder as they arrive, and what their requests carry. */
import type { DownloadProgress } from '../../checkpoints/hub_options.js';
import { fileProgress } from '../../checkpoints/progress.js';
import type { NotKept } from './stored.js';

/** What a loading call says of its files. */
export interface DownloadOptions {
  /** Name by which the folder was asked for. */
  name?: string;
  token?: string;
  signal?: AbortSignal;
  on_progress?: (progress: { file: string; written: number; total: number }) => void;
  progress_callback?: (progress: DownloadProgress) => void;
  on_warning?: (message: string) => void;
}

/** What a file is told of its folder. */
export interface Download {
  readonly token?: string;
  readonly signal?: AbortSignal;
  progress(loaded: number, total: number): void;
  /** Called where the browser does not keep what was fetched. */
  notKept(why: NotKept): void;
}

const folders = new Map<string, DownloadOptions>();

/** Files below an address belong to a loading call from now on. */
export function beginDownload(folder: string, options: DownloadOptions): void {
  folders.delete(folder);
  folders.set(folder, options);
}

/** The loading call that a file belongs to. */
export function downloadOf(url: string): Download {
  const [folder, options] = [...folders].reverse().find(([each]) => url.startsWith(each)) ?? ['', {}];
  const file = url.slice(folder.length);
  const { name = folder, token, signal, on_progress, progress_callback, on_warning } = options;
  const tell = fileProgress(progress_callback, name, file);
  let warned = false;
  return {
    token,
    signal,
    progress: (loaded, total) => {
      on_progress?.({ file, written: loaded, total });
      tell(loaded, total);
    },
    notKept: (why) => {
      if (warned) return;
      warned = true;
      const what =
        why === 'no room'
          ? `The browser gives no room to keep ${file}`
          : `This page has no storage to keep ${file} in (it needs https or localhost, and a frame its own origin)`;
      on_warning?.(`${what}: the next visit will fetch it again.`);
    },
  };
}
