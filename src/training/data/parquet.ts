/**
 * Rows of Parquet files, by hyparquet. What a damaged file says of itself is checked before it is believed: hyparquet allocates and loops on
 * those numbers.
 */
import { ArgumentError, Mamba2Error } from '../../base/errors.js';
import { RandomAccessFile } from '../../base/files.js';
import { isPlain } from '../../base/option_kinds.js';
import { plain } from '../../base/quote.js';
import { crc32 } from '../../checkpoints/zip.js';
import type { ColumnMetaData, FileMetaData, RowGroup, SchemaTree } from 'hyparquet';
import { loadPageReaders, MOST_PAGE, type PageReaders, refusedPage } from './parquet_pages.js';
import type { Example } from './readers.js';

/** Most rows of a group: a group is made into rows at once. */
const MOST_ROWS = 20_000_000;

/** A column's place in the schema, from the root. */
type Leaf = SchemaTree[];

/** The leaves of a schema by their paths. */
function leavesOf(tree: SchemaTree): Map<string, Leaf> {
  const leaves = new Map<string, Leaf>();
  const walk = (node: SchemaTree, above: Leaf): void => {
    const path = [...above, node];
    if (node.children.length === 0) leaves.set(JSON.stringify(node.path), path);
    for (const child of node.children) walk(child, path);
  };
  for (const child of tree.children) walk(child, [tree]);
  return leaves;
}

/** One row group: what its metadata says, against the pages that are there. */
class GroupCheck {
  constructor(
    private readonly file: RandomAccessFile,
    private readonly leaves: ReadonlyMap<string, Leaf>,
    private readonly readers: PageReaders,
  ) {}

  /** @returns the number of rows @throws ArgumentError */
  async rows(group: RowGroup, index: number): Promise<number> {
    const rows = Number(group.num_rows);
    if (!Number.isSafeInteger(rows) || rows < 0 || rows > MOST_ROWS)
      throw this.damaged(`row group ${index} would have ${rows} rows; at most ${MOST_ROWS} are read at once`);
    if (!Array.isArray(group.columns)) throw this.damaged(`row group ${index} has no columns`);
    const seen = new Set<string>();
    for (const { meta_data: column } of group.columns) {
      const path = JSON.stringify(column?.path_in_schema);
      const leaf = this.leaves.get(path);
      if (!column || !leaf || seen.has(path))
        throw this.damaged(`row group ${index} has a column that its schema has not`);
      seen.add(path);
      await this.column(column, leaf, rows);
    }
    if (seen.size !== this.leaves.size) throw this.damaged(`row group ${index} has no data of some column`);
    return rows;
  }

  private async column(column: ColumnMetaData, leaf: Leaf, rows: number): Promise<void> {
    const name = plain(column.path_in_schema.join('.'));
    const begin = Number(column.dictionary_page_offset ?? 0) || Number(column.data_page_offset);
    const length = Number(column.total_compressed_size);
    const inside = [begin, length].every((n) => Number.isSafeInteger(n) && n >= 0) && begin + length <= this.file.size;
    if (!inside) throw this.damaged(`column ${name} lies outside the file`);
    const bytes = await this.file.read(begin, length);
    const reader = { view: new DataView(bytes.buffer), offset: 0 };
    const repeated = this.readers.getMaxRepetitionLevel(leaf) > 0;
    let values = 0;
    while (reader.offset < length - 1 && (repeated || values < rows)) {
      const header = this.readers.parquetHeader(reader);
      const [stored, size] = [header.compressed_page_size, Number(header.uncompressed_page_size)];
      const page = header.data_page_header ?? header.data_page_header_v2;
      const count = page?.num_values ?? header.dictionary_page_header?.num_values ?? -1;
      const good =
        [stored, size, count].every((n) => Number.isSafeInteger(n) && n >= 0) &&
        reader.offset + stored <= length &&
        size <= MOST_PAGE &&
        (page ? values + count <= MOST_ROWS * 8 : count <= size);
      if (!good) throw this.damaged(`column ${name} has a page that cannot be`);
      const { crc } = header;
      const data = bytes.subarray(reader.offset, reader.offset + stored);
      if (typeof crc === 'number' && crc32(data) !== crc >>> 0)
        throw this.damaged(`a page of column ${name} does not match its checksum`);
      const refused = refusedPage(header, data, column, leaf, this.readers);
      if (refused !== null) throw this.damaged(`column ${name} has a page that cannot be: ${refused}`);
      if (page) values += count;
      reader.offset += stored;
    }
    if (repeated ? values < rows : values !== rows)
      throw this.damaged(`column ${name} has ${values} values for ${rows} rows`);
  }

  private damaged(what: string): ArgumentError {
    return new ArgumentError(`${this.file.path}: ${what}. The file is damaged; fetch or write it again.`, {
      file: this.file.path,
    });
  }
}

/** Whole numbers of 64 bits as numbers, where those hold them: ids and labels among them. */
function numbersOf(value: unknown): unknown {
  if (typeof value === 'bigint') return Number.isSafeInteger(Number(value)) ? Number(value) : value;
  if (Array.isArray(value)) return value.map(numbersOf);
  if (value instanceof BigInt64Array) return Array.from(value, numbersOf);
  if (isPlain(value)) return Object.fromEntries(Object.entries(value).map(([key, v]) => [key, numbersOf(v)]));
  return value;
}

const load = () => Promise.all([import('hyparquet'), loadPageReaders()]);
let library: ReturnType<typeof load> | null = null;

/**
 * The rows of a file, a row group at a time.
 * @throws ArgumentError naming the file, for whatever is wrong with it
 */
export async function* readParquet(path: string): AsyncGenerator<Example> {
  const [parquet, readers] = await (library ??= load());
  const file = await RandomAccessFile.open(path);
  const of = async <T>(work: () => Promise<T> | T): Promise<T> => {
    try {
      return await work();
    } catch (error) {
      if (error instanceof Mamba2Error) throw error;
      throw new ArgumentError(
        `${path}: no Parquet file, or a damaged one (${plain((error as Error).message, 200)}).`,
        { file: path },
        { cause: error },
      );
    }
  };
  const buffer = {
    byteLength: file.size,
    slice: (start: number, end = file.size): Promise<ArrayBuffer> => {
      const bytes = file.read(start, end - start).then(({ buffer }) => buffer as ArrayBuffer);
      // hyparquet asks for several and waits for one: a second that fails would be nobody's
      bytes.catch(() => undefined);
      return bytes;
    },
  };
  try {
    const { metadata, leaves } = await of(async () => {
      const metadata: FileMetaData = await parquet.parquetMetadataAsync(buffer);
      return { metadata, leaves: leavesOf(parquet.parquetSchema(metadata)) };
    });
    const check = new GroupCheck(file, leaves, readers);
    let start = 0;
    for (const [index, group] of metadata.row_groups.entries()) {
      const rowStart = start;
      start += await of(() => check.rows(group, index));
      const options = { file: buffer, metadata, compressors: readers.compressors, rowStart, rowEnd: start };
      for (const row of await of(() => parquet.parquetReadObjects(options))) yield numbersOf(row) as Example;
    }
  } finally {
    await file.close();
  }
}
