/** Files that were just asked for, which are about to be asked for again: whether one is there, then what it says. */
import { downloadOf } from './downloads.js';
import { HttpFile } from './http_file.js';

interface Asked {
  readonly file: Promise<HttpFile>;
  /** false: it is to be opened anew. */
  usable(): boolean;
  failed: boolean;
}

const asked = new Map<string, Asked>();
/** For so long, in milliseconds: later, the server may have another. */
const JUST = 2000;

/** A file at an address. @throws as HttpFile.open() */
export function askedFile(url: string): Promise<HttpFile> {
  const before = asked.get(url);
  if (before?.usable()) return before.file;
  const { signal } = downloadOf(url);
  const file = HttpFile.open(url);
  const entry: Asked = { file, failed: false, usable: () => !signal?.aborted };
  asked.set(url, entry);
  const settled = (): void => void setTimeout(() => asked.get(url) === entry && asked.delete(url), JUST);
  file.then(
    (opened) => {
      entry.usable = () => opened.usable;
      settled();
    },
    () => {
      entry.failed = true;
      settled();
    },
  );
  return file;
}

/** What failed below an address may be there now: another call asks for it. */
export function forgetFailures(folder: string): void {
  for (const [url, { failed }] of asked) if (failed && url.startsWith(folder)) asked.delete(url);
}
