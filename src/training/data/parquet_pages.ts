/**
 * What a page of a Parquet file says of the number of its values, against how many there are: hyparquet believes it, and a few bytes could
 * ask for more than memory holds. Nothing of the values themselves is looked at.
 */
import type { ColumnMetaData, DataReader, PageHeader, SchemaTree } from 'hyparquet';

/** What is needed of hyparquet, which is loaded when a Parquet file is read. */
export async function loadPageReaders() {
  const [column, datapage, delta, encoding, schema, thrift, { compressors, decompressZstd: zstd }] = await Promise.all([
    import('hyparquet/src/column.js'),
    import('hyparquet/src/datapage.js'),
    import('hyparquet/src/delta.js'),
    import('hyparquet/src/encoding.js'),
    import('hyparquet/src/schema.js'),
    import('hyparquet/src/thrift.js'),
    import('hyparquet-compressors'),
  ]);
  // of its own accord Zstandard makes as much as there is; the others stop where the page ends
  const ZSTD = (input: Uint8Array, length: number): Uint8Array => {
    const size = zstdSize(input);
    if (size !== null && size !== length) throw new Error(`${size} bytes are compressed, where ${length} are expected`);
    return zstd(input, new Uint8Array(length));
  };
  return { ...column, ...datapage, ...delta, ...encoding, ...schema, ...thrift, compressors: { ...compressors, ZSTD } };
}

/** The size that a Zstandard frame says it has (RFC 8878, 3.1.1.1); null where it does not. */
function zstdSize(input: Uint8Array): number | null {
  const view = new DataView(input.buffer, input.byteOffset, input.byteLength);
  if (view.byteLength < 18) return null;
  const descriptor = view.getUint8(4);
  const single = (descriptor & 32) !== 0;
  const at = 5 + (single ? 0 : 1) + [0, 1, 2, 4][descriptor & 3]!;
  const kind = descriptor >> 6;
  if (kind === 0) return single ? view.getUint8(at) : null;
  if (kind === 1) return view.getUint16(at, true) + 256;
  return kind === 2 ? view.getUint32(at, true) : Number(view.getBigUint64(at, true));
}
export type PageReaders = Awaited<ReturnType<typeof loadPageReaders>>;

/** Most bytes of a page, stored or made of it. */
export const MOST_PAGE = 256 * 2 ** 20;

/** Why a page is refused. */
class Wrong extends Error {}

const bitsOf = (value: number): number => 32 - Math.clz32(value);
const isCount = (n: unknown, most: number): n is number =>
  Number.isSafeInteger(n) && Number(n) >= 0 && Number(n) <= most;
const readerOf = (bytes: Uint8Array): DataReader => ({
  view: new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength),
  offset: 0,
});

/** One page of a column. */
class Page {
  private readonly repetition: number;
  private readonly definition: number;

  constructor(
    private readonly header: PageHeader,
    private readonly stored: Uint8Array,
    private readonly column: ColumnMetaData,
    path: SchemaTree[],
    private readonly readers: PageReaders,
  ) {
    // hyparquet looks for repetition below the root only
    this.repetition = path.length > 1 ? readers.getMaxRepetitionLevel(path) : 0;
    this.definition = readers.getMaxDefinitionLevel(path);
  }

  check(): void {
    const { data_page_header: first, data_page_header_v2: second } = this.header;
    if (this.header.type === 'DATA_PAGE' && first) this.first(first);
    else if (this.header.type === 'DATA_PAGE_V2' && second) this.second(second);
  }

  private decompressed(bytes: Uint8Array, size: number): Uint8Array {
    const { codec } = this.column;
    return this.readers.decompressPage(bytes, size, codec, this.readers.compressors);
  }

  private first({ num_values: count, encoding }: NonNullable<PageHeader['data_page_header']>): void {
    const page = readerOf(this.decompressed(this.stored, Number(this.header.uncompressed_page_size)));
    if (this.repetition) this.levels(page, this.repetition, count);
    const nulls = this.definition ? this.levels(page, this.definition, count) : 0;
    this.values(page, encoding, count - nulls);
  }

  private second(header: NonNullable<PageHeader['data_page_header_v2']>): void {
    const { num_values: count, num_nulls: nulls, encoding } = header;
    const [rep, def] = [header.repetition_levels_byte_length, header.definition_levels_byte_length];
    if (!isCount(nulls, count) || !isCount(header.num_rows, count)) throw new Wrong('more nulls or rows than values');
    if (!isCount(rep, this.stored.length) || !isCount(def, this.stored.length - rep))
      throw new Wrong('levels beyond it');
    const levels = readerOf(this.stored);
    if (this.repetition) this.runs(levels, bitsOf(this.repetition), count);
    levels.offset = rep;
    if (this.definition) this.runs(levels, bitsOf(this.definition), count);
    const size = Number(this.header.uncompressed_page_size) - rep - def;
    // hyparquet reads the values where the levels end, which a column without levels has not
    const values = this.stored.subarray(this.definition ? rep + def : rep);
    const page = readerOf(header.is_compressed === false ? values : this.decompressed(values, size));
    this.values(page, encoding, count - nulls);
  }

  /** Levels of a page of the first kind. @returns how many values are less than the level, that is null */
  private levels(page: DataReader, most: number, count: number): number {
    const start = page.offset;
    const walked = { view: page.view, offset: start + 4 };
    this.runs(walked, bitsOf(most), count);
    const levels = new Array<number>(count);
    this.readers.readRleBitPackedHybrid(page, bitsOf(most), levels);
    return levels.reduce((sum, level) => sum + (level < most ? 1 : 0), 0);
  }

  private values(page: DataReader, encoding: string | undefined, count: number): void {
    const { type } = this.column;
    const rest = page.view.byteLength - page.offset;
    if (encoding === 'RLE' || encoding?.endsWith('_DICTIONARY')) {
      if (count === 0) return;
      const second = this.header.type === 'DATA_PAGE_V2';
      const truths = second ? encoding === 'RLE' : type === 'BOOLEAN';
      if (truths) page.offset += 4;
      const width = truths ? 1 : page.view.getUint8(page.offset++);
      if (width > 0 || second) this.runs(page, width, count);
    } else if (encoding === 'DELTA_BYTE_ARRAY') this.prefixes(page, count);
    else if (!encoding?.startsWith('DELTA') && count > 8 * rest) throw new Wrong(`${count} values in ${rest} bytes`);
  }

  /** Goes over runs of values of so many bits, which are repeated values or packed ones. */
  private runs(page: DataReader, width: number, count: number): void {
    for (let seen = 0; seen < count;) {
      const header = this.readers.readVarInt(page) >>> 0;
      const packed = header % 2 === 1;
      const run = (header >>> 1) * (packed ? 8 : 1);
      // packed values come by eights, and writers differ in how many of them fill the last
      const most = packed && width > 0 ? 8 * page.view.byteLength : count - seen + (packed ? 7 : 0);
      if (run > most) throw new Wrong(`a run of ${run} where ${count - seen} values are left`);
      page.offset += packed ? (run / 8) * width : (width + 7) >> 3;
      seen += run;
    }
  }

  /** Texts that begin as the one before them: a page of them may stand for far more than it holds. */
  private prefixes(page: DataReader, count: number): void {
    const [before, after] = [new Int32Array(count), new Int32Array(count)];
    if (count === 0) return;
    this.readers.deltaBinaryUnpack(page, count, before);
    this.readers.deltaBinaryUnpack(page, count, after);
    let [last, sum] = [0, 0];
    for (let i = 0; i < count; i++) {
      if (before[i]! < 0 || after[i]! < 0 || before[i]! > last) throw new Wrong('a text that begins as none before it');
      last = before[i]! + after[i]!;
      sum += last;
    }
    if (sum > MOST_PAGE) throw new Wrong(`${sum} bytes of text`);
  }
}

/**
 * Looks a page over before hyparquet reads it.
 * @param stored its bytes as the file has them
 * @param path its column's place in the schema, from the root
 * @returns why it is refused; null when it may be read. What cannot be read at all is hyparquet's to say.
 */
export function refusedPage(
  header: PageHeader,
  stored: Uint8Array,
  column: ColumnMetaData,
  path: SchemaTree[],
  readers: PageReaders,
): string | null {
  try {
    new Page(header, stored, column, path, readers).check();
    return null;
  } catch (error) {
    if (error instanceof Wrong) return error.message;
    throw error;
  }
}
