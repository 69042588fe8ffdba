/** Which files hold which split of which configuration of a data set. */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { ArgumentError } from '../../base/errors.js';
import { quote } from '../../base/quote.js';
import { type FileKind, fileKind } from '../data/readers.js';

/** A file of rows. */
export interface DataFile {
  readonly name: string;
  readonly kind: FileKind;
  /** Where it is on disk, brought there if need be. */
  readonly open: () => Promise<string>;
}

/** Names of files by split. */
export type SplitFiles = ReadonlyMap<string, readonly string[]>;
/** The same by configuration. */
export type ConfigFiles = ReadonlyMap<string, SplitFiles>;

/** The one configuration of a data set that has no names for several. */
export const ONE_CONFIG = 'default';

const add = (splits: Map<string, string[]>, split: string, name: string): void => {
  splits.set(split, [...(splits.get(split) ?? []), name]);
};

/** The hub's own conversion: CONFIG/SPLIT/0000.parquet, 'partial-SPLIT' where it is only the beginning. */
export function convertedFiles(names: readonly string[]): { configs: ConfigFiles; partial: boolean } {
  const configs = new Map<string, Map<string, string[]>>();
  let partial = false;
  for (const name of [...names].sort()) {
    const [config, split, ...rest] = name.split('/');
    if (rest.length === 0 || !name.endsWith('.parquet')) continue;
    partial ||= split!.startsWith('partial-');
    configs.set(config!, configs.get(config!) ?? new Map<string, string[]>());
    add(configs.get(config!)!, split!.replace(/^partial-/, ''), name);
  }
  return { configs, partial };
}

/** What data sets are described by, not made of. */
const ABOUT = /(^|\/)(readme|license|dataset_infos?|dataset_dict|state|config|croissant|metadata)\.[a-z]+$/i;

const SPLITS: readonly (readonly [string, string])[] = [
  ['train', 'train|training'],
  ['validation', 'validation|valid|val|dev'],
  ['test', 'test|testing|eval|evaluation'],
];

/** The split that a file's name or folder speaks of: a shard's ('data/NAME-00000-of-00002'), or a usual word. */
function splitOf(name: string): string | null {
  const shard = /(?:^|\/)([\w.]+?)-\d{5}-of-\d{5}/.exec(name);
  if (shard) return shard[1]!;
  const found = SPLITS.find(([, words]) => new RegExp(`(^|[^a-z])(${words})([^a-z]|$)`, 'i').test(name));
  return found?.[0] ?? null;
}

/**
 * Files by what their names say, as Python's datasets does where nothing else is said: of the kind that most are of; without a
 * word for a split, all are 'train'.
 */
export function filesByName(names: readonly string[]): SplitFiles {
  const data = names.filter(
    (name) => fileKind(name) !== null && !ABOUT.test(name) && !name.split('/').some((part) => /^[._]/.test(part)),
  );
  const counts = new Map<FileKind, number>();
  for (const name of data) counts.set(fileKind(name)!, (counts.get(fileKind(name)!) ?? 0) + 1);
  const kind = [...counts].sort((a, b) => b[1] - a[1])[0]?.[0];
  const splits = new Map<string, string[]>();
  const chosen = data.filter((name) => fileKind(name) === kind).sort();
  const named = chosen.some((name) => splitOf(name) !== null);
  for (const name of chosen) {
    const split = named ? splitOf(name) : 'train';
    if (split !== null) add(splits, split, name);
  }
  return splits;
}

/** What data_files may be: files of 'train', or files by split. */
export type DataFilesOption = string | readonly string[] | Readonly<Record<string, string | readonly string[]>>;

/** @throws ArgumentError for patterns */
export function filesByOption(given: DataFilesOption): SplitFiles {
  const bySplit = typeof given === 'string' || Array.isArray(given) ? { train: given } : given;
  const entries = Object.entries(bySplit).map(([split, files]) => [split, [files].flat() as string[]] as const);
  for (const name of entries.flatMap(([, files]) => files)) {
    if (!/[*?]|\[.*\]/.test(name) || fs.existsSync(name)) continue;
    throw new ArgumentError(`data_files has the pattern ${quote(name)}; expected names of files, each by itself.`, {
      option: 'data_files',
      got: name,
    });
  }
  return new Map(entries);
}

/** What lies at a path. Of an address without an ending a page takes it that it is a folder. */
export async function whatIs(name: string): Promise<'file' | 'folder' | null> {
  const found = await fs.promises.stat(name).catch(() => null);
  if (found === null) return null;
  return found.isFile() ? 'file' : 'folder';
}

/** All files of rows below a folder, relative to it. */
export async function filesBelow(dir: string): Promise<string[]> {
  const found = await fs.promises.readdir(dir, { recursive: true });
  return found.filter((name) => fileKind(name) !== null).map((name) => name.split(path.sep).join('/'));
}
