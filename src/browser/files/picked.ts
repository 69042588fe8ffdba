/** Files that a person chose in the page, as a folder with a name: what `from_pretrained()` takes. */
import { ArgumentError } from '../../base/errors.js';
import { quote } from '../../base/quote.js';

const PREFIX = 'picked:';
const folders = new Map<string, ReadonlyMap<string, File>>();

export const isPicked = (path: string): boolean => path.startsWith(PREFIX);

/**
 * A name for chosen files, to load a model or a state from. Of a whole folder (`<input type=file webkitdirectory>`) the names within it count.
 * @throws ArgumentError for no files, or two of one name
 * @example const model = await AutoModelForCausalLM.from_pretrained(folderOfFiles(input.files));
 */
export function folderOfFiles(files: ArrayLike<File>): string {
  const named = new Map<string, File>();
  for (const file of Array.from(files)) {
    if (!(file instanceof File))
      throw new ArgumentError(`folderOfFiles(): got ${quote(file)}; expected File objects.`, { got: file });
    const name = file.webkitRelativePath ? file.webkitRelativePath.split('/').slice(1).join('/') : file.name;
    if (named.has(name)) throw new ArgumentError(`folderOfFiles(): two files are called ${quote(name)}.`, { name });
    named.set(name, file);
  }
  if (named.size === 0) throw new ArgumentError('folderOfFiles(): got no files.', {});
  const path = `${PREFIX}${folders.size + 1}`;
  folders.set(path, named);
  return path;
}

/** The chosen file at a path; null where there is none. */
export function pickedFile(path: string): File | null {
  const [folder = '', ...rest] = path.split('/');
  return folders.get(folder)?.get(rest.join('/')) ?? null;
}

/** Names of what lies in a folder of chosen files; null where there is no such folder. */
export function pickedNames(path: string): string[] | null {
  const [folder = '', ...rest] = path.split('/');
  const inside = rest.length === 0 ? '' : `${rest.join('/')}/`;
  const names = [...(folders.get(folder)?.keys() ?? [])].filter((name) => name.startsWith(inside));
  if (names.length === 0) return null;
  return [...new Set(names.map((name) => name.slice(inside.length).split('/')[0]!))];
}
