/** load_dataset(): rows of local files and of data sets on the hub, by the names of Python's datasets. */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { ArgumentError } from '../../base/errors.js';
import * as kinds from '../../base/option_kinds.js';
import { OptionTable } from '../../base/options.js';
import { quote } from '../../base/quote.js';
import { isRepoId } from '../../checkpoints/hub_cache.js';
import { HUB_OTHERS, HUB_RULES, type HubOptions } from '../../checkpoints/hub_options.js';
import {
  type Example,
  type FileKind,
  fileKind,
  READ_NAMES,
  READ_OTHERS,
  READ_RULES,
  readAs,
  type ReadOptions,
} from '../data/readers.js';
import { convertedFiles, type ConfigFiles, type DataFile, type DataFilesOption, filesBelow, filesByName, filesByOption, ONE_CONFIG, type SplitFiles, whatIs } from './data_files.js'; // prettier-ignore
import { Dataset, IterableDataset } from './dataset.js';
import { CONVERTED, HubFiles } from './hub_files.js';
import { parseSplit, rowsOf, rowsOfStream, type SplitPart } from './split.js';

export interface LoadDatasetOptions extends HubOptions, ReadOptions {
  /** Configuration (subset) of the data set. Needed where there are several and none is called 'default'. */
  name?: string | null;
  /** 'train', 'train[:100]', 'train[10%:20%]', 'train+test'. Default: all splits, by name. */
  split?: string | null;
  /** Files, or files by split: local ones, or those of the data set on the hub. */
  data_files?: DataFilesOption | null;
  /** Folder that files are looked for in. */
  data_dir?: string | null;
  /** Rows as they are read, instead of all in memory. Default false. */
  streaming?: boolean;
}

/** Data sets by split. */
export type DatasetDict = Readonly<Record<string, Dataset>>;
export type IterableDatasetDict = Readonly<Record<string, IterableDataset>>;

/** Kinds of files, as Python's datasets names their readers. */
const BUILDERS: Readonly<Record<string, FileKind>> = { json: 'json', csv: 'csv', text: 'text', parquet: 'parquet' };
const NO_BUILDERS = ['arrow', 'pandas', 'webdataset', 'imagefolder', 'audiofolder', 'videofolder', 'sql', 'xml', 'generator']; // prettier-ignore

const CONVERT = 'convert it to .jsonl or .parquet';
const files = kinds.either(kinds.text, kinds.listOf(kinds.text, 'names of files', 1));
const TABLE = new OptionTable<LoadDatasetOptions>(
  'load_dataset()',
  {
    ...HUB_RULES,
    ...READ_RULES,
    name: { kind: kinds.orNull(kinds.named('the name of a configuration', kinds.text)) },
    split: { kind: kinds.orNull(kinds.named("the name of a split: 'train', 'train[:100]'", kinds.text)) },
    data_files: {
      kind: kinds.orNull(
        kinds.named('a file, a list of files, or either by split', (v) =>
          [files, kinds.recordOf(files, 'files by split')].some((kind) => kind.ok(v)),
        ),
      ),
    },
    data_dir: { kind: kinds.orNull(kinds.named('a folder', kinds.text)) },
    streaming: { kind: kinds.boolean, default: false },
  },
  {
    others: {
      ...HUB_OTHERS,
      config: 'name',
      config_name: 'name',
      subset: 'name',
      path: { why: 'it is the first argument' },
      features: { why: 'columns are as the files have them', off: [null] },
      download_config: {
        why: 'the options of downloads are options here: token, revision, cache_dir and more',
        off: [null],
      },
      download_mode: {
        why: 'a file is fetched when its checksum is not in the cache',
        off: [null, 'reuse_dataset_if_exists'],
      },
      verification_mode: { why: 'checksums are always compared', off: [null, 'basic_checks', 'all_checks'] },
      ignore_verifications: { why: 'checksums are always compared', off: [false] },
      keep_in_memory: { why: 'rows are in memory, or streamed with streaming: true', off: [null, true, false] },
      save_infos: { why: 'there is no loading script', off: [false] },
      task: { why: 'columns are as the files have them', off: [null] },
      num_proc: { why: 'files are read in this process', off: [null, 1] },
      storage_options: { why: 'files are local, or on the hub', off: [null] },
      ...READ_OTHERS,
      column_names: {
        why: 'the first line of a .csv file names its columns; rename_column() gives others',
        off: [null],
      },
      encoding: { why: 'texts are UTF-8, or UTF-16 with its mark', off: [null, 'utf-8', 'utf8'] },
      keep_linebreaks: { why: 'an example is a line without its end', off: [false] },
      columns: { why: 'use select_columns()', off: [null] },
      filters: { why: 'use filter()', off: [null] },
      lines: { why: 'lists and one object a line are told apart', off: [true, false] },
    },
    clashes: [
      {
        option: 'data_dir',
        when: ({ data_files }) => data_files !== undefined && data_files !== null,
        why: 'and data_files is given too: pass either',
      },
    ],
  },
);

/** Splits with what opens their files. */
type Splits = ReadonlyMap<string, readonly DataFile[]>;

const names = (all: Iterable<string>): string => [...all].map((name) => quote(name)).join(', ');

function local(files: SplitFiles, dir: string, kind?: FileKind): Splits {
  const of = (name: string): DataFile => {
    const file = path.resolve(dir, name);
    return { name, kind: kindOf(name, kind), open: () => Promise.resolve(file) };
  };
  return new Map([...files].map(([split, list]) => [split, list.map(of)]));
}

/** @param kind asked for; JSON lines are told from JSON by their name */
function kindOf(file: string, kind?: FileKind): FileKind {
  const own = fileKind(file);
  const found = kind === undefined || isOf(kind, file) ? own : kind;
  if (found !== null && found !== undefined) return found;
  throw new ArgumentError(`${quote(file)} is of no kind that is read: ${READ_NAMES}. ${capital(CONVERT)}.`, {
    file,
  });
}

/** Whether a file's name is one that a reader reads. */
function isOf(kind: FileKind, name: string): boolean {
  const own = fileKind(name);
  return own === kind || (kind === 'json' && own === 'jsonl');
}

const capital = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);

/** The configuration that is meant. */
function configOf(configs: ConfigFiles, wanted: string | null, dataset: string): SplitFiles {
  const name = wanted ?? (configs.size === 1 ? [...configs.keys()][0]! : ONE_CONFIG);
  const found = configs.get(name);
  if (found) return found;
  const why = wanted === null ? 'name says which configuration' : `it has no configuration ${quote(wanted)}`;
  throw new ArgumentError(`The data set ${dataset}: ${why}; there are ${names(configs.keys())}.`, {
    option: 'name',
    got: wanted,
    expected: [...configs.keys()],
  });
}

/** The files of a revision of a data set on the hub; null where it has none, or there is no such revision. */
async function ofRevision(
  dataset: string,
  revision: string,
  options: LoadDatasetOptions,
  needed: boolean,
): Promise<Splits | null> {
  const hub = await HubFiles.open(dataset, revision, options, needed);
  if (!hub) return null;
  const opened = (files: SplitFiles): Splits =>
    new Map(
      [...files].map(([split, list]): [string, DataFile[]] => {
        const fetching = hub.fetching(list);
        return [split, list.map((name, i) => ({ name, kind: kindOf(name), open: fetching[i]! }))];
      }),
    );
  if (options.data_files) {
    const chosen = filesByOption(options.data_files);
    const missing = [...chosen.values()].flat().find((name) => !hub.names.includes(name));
    if (missing === undefined) return opened(chosen);
    const there = hub.names.filter((name) => fileKind(name) !== null);
    throw new ArgumentError(
      `The data set ${dataset} (revision ${revision}) has no file ${quote(missing)}; it has ${names(there.slice(0, 20))}.`,
      { option: 'data_files', got: missing, expected: there },
    );
  }
  const name = options.name ?? null;
  if (revision === CONVERTED) {
    const { configs, partial } = convertedFiles(hub.names);
    if (configs.size === 0) return null;
    if (partial)
      options.on_warning?.(`Of ${dataset} the hub keeps only the beginning as parquet: this is not the whole of it.`);
    return opened(configOf(configs, name, dataset));
  }
  const dir = options.data_dir?.replace(/\/+$/, '');
  const within = hub.names.filter((each) => dir === undefined || each.startsWith(`${dir}/`));
  const folders = new Set(within.flatMap((each) => (each.includes('/') ? [each.split('/')[0]!] : [])));
  if (name !== null && name !== ONE_CONFIG && folders.has(name))
    return opened(filesByName(within.filter((each) => each.startsWith(`${name}/`))));
  const splits = filesByName(within);
  return splits.size === 0 ? null : opened(configOf(new Map([[ONE_CONFIG, splits]]), name, dataset));
}

/** The splits of a data set on the hub: as the hub keeps it in parquet, or else by the names of its own files. */
async function onHub(dataset: string, options: LoadDatasetOptions): Promise<Splits> {
  const own = options.data_files ?? options.data_dir;
  const revisions = options.revision !== undefined ? [options.revision] : own ? ['main'] : [CONVERTED, 'main'];
  for (const revision of revisions) {
    const splits = await ofRevision(dataset, revision, options, revision === revisions.at(-1));
    if (splits) return splits;
  }
  throw new ArgumentError(`The data set ${dataset} has no files that are read: ${READ_NAMES}. ${capital(CONVERT)}.`, {
    dataset,
  });
}

async function splitsOf(dataset: string, options: LoadDatasetOptions): Promise<Splits> {
  const kind = Object.hasOwn(BUILDERS, dataset) ? BUILDERS[dataset] : undefined;
  if (kind !== undefined) {
    if (options.data_files) return local(filesByOption(options.data_files), '.', kind);
    if (options.data_dir)
      return local(
        filesByName((await filesBelow(options.data_dir)).filter((name) => isOf(kind, name))),
        options.data_dir,
      );
    throw new ArgumentError(`load_dataset(${quote(dataset)}) reads local files: it needs data_files.`, {
      option: 'data_files',
    });
  }
  if (NO_BUILDERS.includes(dataset) && !fs.existsSync(dataset))
    throw new ArgumentError(`load_dataset(${quote(dataset)}): ${dataset} is not read; ${CONVERT}.`, { got: dataset });
  const there = await whatIs(dataset);
  // in a page nothing exists at once, and a name on the hub looks like a folder's address
  if (there === 'file' || (there === 'folder' && (fs.existsSync(dataset) || !isRepoId(dataset)))) {
    if (there === 'file') return local(new Map([['train', [dataset]]]), '.');
    if (options.data_files) return local(filesByOption(options.data_files), dataset);
    const dir = path.join(dataset, options.data_dir ?? '', options.name ?? '');
    if ((await whatIs(dir)) !== 'folder') throw new ArgumentError(`There is no folder ${dir}.`, { dir });
    const found = local(filesByName(await filesBelow(dir)), dir);
    if (found.size > 0) return found;
    throw new ArgumentError(`${dir} has no files that are read: ${READ_NAMES}.`, { dir });
  }
  if (isRepoId(dataset)) return onHub(dataset, options);
  throw new ArgumentError(
    `There is no folder ${quote(dataset)}, and it is no name of a data set on the hub ("org/name") either; local files are read by load_dataset('json' | 'csv' | 'text' | 'parquet', { data_files }).`,
    { got: dataset },
  );
}

/** The rows of files, one after the other. */
async function* rowsIn(
  list: readonly DataFile[],
  { sample_by, field, delimiter, signal }: LoadDatasetOptions,
): AsyncGenerator<Example> {
  for (const { kind, open } of list) {
    const file = await open();
    for await (const row of readAs(kind, file, { sample_by, field, delimiter })) {
      signal?.throwIfAborted();
      yield row;
    }
  }
}

/** A part of a split as a stream; null where the number of all its rows must be known. */
function streamOf(part: SplitPart, splits: Splits, options: LoadDatasetOptions): IterableDataset | null {
  const rows = new IterableDataset(() => rowsIn(splits.get(part.name)!, options));
  const range = rowsOfStream(part);
  if (!range) return null;
  const [from, to] = range;
  const rest = from > 0 ? rows.skip(from) : rows;
  return to === Infinity ? rest : rest.take(to - from);
}

async function collect(rows: AsyncIterable<Example>): Promise<Example[]> {
  const all: Example[] = [];
  for await (const row of rows) all.push(row);
  return all;
}

async function rowsOfPart(part: SplitPart, splits: Splits, options: LoadDatasetOptions): Promise<Example[]> {
  const stream = streamOf(part, splits, options);
  if (stream) return collect(stream);
  const all = await collect(rowsIn(splits.get(part.name)!, options));
  return all.slice(...rowsOf(part, all.length));
}

/** Streams one after the other. */
function joined(parts: readonly SplitPart[], splits: Splits, options: LoadDatasetOptions): IterableDataset {
  const streams = parts.map((part) => {
    const stream = streamOf(part, splits, options);
    if (stream) return stream;
    throw new ArgumentError(
      `split is ${quote(options.split)}, and streaming is true: of a stream it is not known how many rows there are. Use a slice of so many rows, as 'train[:100]', or leave streaming away.`,
      { option: 'split', got: options.split },
    );
  });
  return new IterableDataset(async function* () {
    for (const stream of streams) yield* stream;
  });
}

type Split = { split: string };
type Streaming = { streaming: true };

/**
 * A data set: local files, or one of the hub, which is fetched file by file into the cache that models have, too.
 *
 * @param dataset 'json', 'csv', 'text' or 'parquet' with data_files; a file or a folder; or `org/name` on the hub
 * @param options with split one data set, without it all by the names of their splits; with streaming: true rows as they are read
 * @throws ArgumentError for what is not there, listing what is; CheckpointError where the hub or the cache fail
 * @example
 * const dataset = await load_dataset('json', { data_files: 'train.jsonl', split: 'train[:100]' });
 * dataset.column_names; // ['text']
 */
export async function load_dataset(dataset: string, options: LoadDatasetOptions & Split & Streaming): Promise<IterableDataset>; // prettier-ignore
export async function load_dataset(dataset: string, options: LoadDatasetOptions & Split & { streaming?: false }): Promise<Dataset>; // prettier-ignore
export async function load_dataset(dataset: string, options: LoadDatasetOptions & Streaming & { split?: null }): Promise<IterableDatasetDict>; // prettier-ignore
export async function load_dataset(dataset: string, options?: LoadDatasetOptions & { streaming?: false; split?: null }): Promise<DatasetDict>; // prettier-ignore
export async function load_dataset(
  dataset: string,
  options: LoadDatasetOptions = {},
): Promise<Dataset | IterableDataset | DatasetDict | IterableDatasetDict> {
  TABLE.check(options);
  if (typeof dataset !== 'string' || dataset === '') {
    throw new ArgumentError(
      `load_dataset() got ${quote(dataset)}; expected the name of a data set ("org/name"), a folder, or 'json', 'csv', 'text', 'parquet' with data_files.`,
      { got: dataset },
    );
  }
  const parts = options.split == null ? null : parseSplit(options.split);
  const splits = await splitsOf(dataset, options);
  const wrong = parts?.find(({ name }) => !splits.has(name));
  if (wrong)
    throw new ArgumentError(
      `The data set ${quote(dataset)} has no split ${quote(wrong.name)}; it has ${names(splits.keys())}.`,
      {
        option: 'split',
        got: wrong.name,
        expected: [...splits.keys()],
      },
    );
  if (parts && options.streaming) return joined(parts, splits, options);
  if (parts) {
    const rows: Example[] = [];
    for (const part of parts) for (const row of await rowsOfPart(part, splits, options)) rows.push(row);
    return new Dataset(rows);
  }
  const all: [string, Dataset | IterableDataset][] = [];
  for (const name of splits.keys()) {
    const part = { name, from: null, to: null };
    const stream = streamOf(part, splits, options)!;
    all.push([name, options.streaming ? stream : new Dataset(await collect(stream))]);
  }
  return Object.fromEntries(all) as DatasetDict | IterableDatasetDict;
}
