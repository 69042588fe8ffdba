/** The page's private files (origin private file system), under paths that begin with `opfs:/`. */

export const OPFS = /^opfs:\/*/;

/** An error as those of node:fs are. */
export function fileError(code: string, message: string, cause?: unknown): Error & { code: string } {
  return Object.assign(new Error(message, { cause }), { code });
}

/** The parts of a path in OPFS. */
export function opfsParts(path: string): string[] {
  return path
    .replace(OPFS, '')
    .split('/')
    .filter((part) => part !== '' && part !== '.');
}

/** What an error of the browser is among those of node:fs. */
function translated(error: unknown, path: string): Error {
  const { name, message } = error as DOMException;
  if (name === 'NotFoundError') return fileError('ENOENT', `ENOENT: no such file, ${path}`, error);
  if (name === 'TypeMismatchError') return fileError('ENOTDIR', `ENOTDIR: ${path}`, error);
  if (name === 'QuotaExceededError')
    return fileError('ENOSPC', `ENOSPC: the browser gives no more room, ${path}`, error);
  if (name === 'NoModificationAllowedError') return fileError('EACCES', `EACCES: ${path} is in use`, error);
  return fileError('EIO', `${path}: ${message}`, error);
}

/** Calls the browser and has it fail as node:fs does. */
export async function asFiles<T>(path: string, call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw typeof (error as { code?: unknown }).code === 'string' ? error : translated(error, path);
  }
}

/** A folder. @param create whether those that are not there are made */
export async function opfsFolder(parts: readonly string[], create: boolean): Promise<FileSystemDirectoryHandle> {
  const storage = globalThis.navigator?.storage;
  if (typeof storage?.getDirectory !== 'function')
    throw fileError('EACCES', 'this page has no private files (they need https or localhost)');
  let folder = await storage.getDirectory();
  for (const part of parts) folder = await folder.getDirectoryHandle(part, { create });
  return folder;
}

/** The handle of a file. */
export function opfsFile(path: string, create: boolean): Promise<FileSystemFileHandle> {
  const parts = opfsParts(path);
  const name = parts.pop();
  return asFiles(path, async () => {
    if (name === undefined) throw fileError('EISDIR', `EISDIR: ${path} is a folder`);
    return (await opfsFolder(parts, false)).getFileHandle(name, { create });
  });
}

/** Gives a file another name: by moving where the browser can, else by copying. */
export function opfsRename(from: string, to: string): Promise<void> {
  return asFiles(from, async () => {
    const handle = await opfsFile(from, false);
    const parts = opfsParts(to);
    const name = parts.pop()!;
    const folder = await opfsFolder(parts, false);
    const { move } = handle as { move?: (folder: FileSystemDirectoryHandle, name: string) => Promise<void> };
    if (move) return move.call(handle, folder, name);
    const writable = await (await folder.getFileHandle(name, { create: true })).createWritable();
    await (await handle.getFile()).stream().pipeTo(writable);
    await opfsRemove(from);
  });
}

export function opfsRemove(path: string, recursive = false): Promise<void> {
  const parts = opfsParts(path);
  const name = parts.pop();
  return asFiles(path, async () => {
    if (name === undefined) throw fileError('EPERM', `EPERM: ${path}`);
    await (await opfsFolder(parts, false)).removeEntry(name, { recursive });
  });
}

/** Names in a folder. */
export function opfsNames(path: string): Promise<string[]> {
  return asFiles(path, async () => {
    const names: string[] = [];
    const folder = await opfsFolder(opfsParts(path), false);
    for await (const name of (folder as unknown as { keys(): AsyncIterable<string> }).keys()) names.push(name);
    return names.sort();
  });
}

/** Whether there is a file or a folder of that name, and which; null where there is neither. */
export async function opfsKind(path: string): Promise<'file' | 'folder' | null> {
  const parts = opfsParts(path);
  const name = parts.pop();
  if (name === undefined) return 'folder';
  try {
    const folder = await opfsFolder(parts, false);
    try {
      await folder.getFileHandle(name);
      return 'file';
    } catch (error) {
      return (error as DOMException).name === 'TypeMismatchError' ? 'folder' : null;
    }
  } catch {
    return null;
  }
}
