/** Parquet: files of every codec, page and encoding that pyarrow writes, and pages that lie about how much they hold. */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { expect } from 'chai';
import { parquetMetadata } from 'hyparquet';
import { ArgumentError } from '../../../src/base/errors.js';
import { loadPageReaders } from '../../../src/training/data/parquet_pages.js';
import { loadExamples } from '../../../src/training/data/index.js';
import { folderForEach } from '../../support/cleanup.js';
import { rejection } from '../../support/errors.js';

const FILES = 'test/fixtures/data/parquet';

describe('parquet', () => {
  const dir = folderForEach('parquet');

  it('of every codec, page and encoding gives the same rows', async () => {
    const rows: unknown = JSON.parse(fs.readFileSync(`${FILES}/rows.json`, 'utf8'));
    const files = fs.readdirSync(FILES).filter((name) => name.endsWith('.parquet'));
    expect(files).to.have.length(18);
    for (const file of files) expect(await loadExamples(`${FILES}/${file}`), file).to.deep.equal(rows);
  });

  it('whole numbers are numbers, so that ids are ids', async () => {
    expect(await loadExamples('test/fixtures/data/ids.parquet')).to.deep.equal([
      { input_ids: [1, 2, 3], n: 7, deep: { a: 1 } },
      { input_ids: [4, 5], n: null, deep: { a: 2 } },
    ]);
  });

  /** A file whose column 'text' has its data page changed. */
  async function changed(name: string, change: (page: Buffer) => void): Promise<string> {
    const { parquetHeader } = await loadPageReaders();
    const bytes = fs.readFileSync(`${FILES}/${name}.parquet`);
    const metadata = parquetMetadata(new Uint8Array(bytes).buffer);
    const column = metadata.row_groups[0]!.columns.find((each) => each.meta_data?.path_in_schema[0] === 'text')!;
    const reader = {
      view: new DataView(new Uint8Array(bytes).buffer),
      offset: Number(column.meta_data!.data_page_offset),
    };
    const { compressed_page_size: size } = parquetHeader(reader);
    change(bytes.subarray(reader.offset, reader.offset + size));
    const file = path.join(dir(), `${name}.parquet`);
    fs.writeFileSync(file, bytes);
    return file;
  }
  /** A run of 2^31 - 1 values, which takes five bytes; then the value. */
  const ENDLESS = Buffer.from([0xfe, 0xff, 0xff, 0xff, 0x0f, 1]);
  /** Packed values, 2^31 of them and more: as a number of 32 bits it is negative. */
  const PACKED = Buffer.from([0xff, 0xff, 0xff, 0xff, 0x0f, 1]);

  /** Where the values begin: 64 levels of one bit, packed, come before them. */
  const LEVELS = { v1: 4, v2: 0 };
  const VALUES = { v1: LEVELS.v1 + 9, v2: LEVELS.v2 + 9 };

  for (const version of ['v1', 'v2'] as const)
    it(`runs longer than their page are refused before they are read: ${version}`, async () => {
      const said = async (change: (page: Buffer) => void, name = `${version}-none`): Promise<string> => {
        const file = await changed(name, change);
        const error = await rejection(loadExamples(file));
        expect(error).to.be.instanceOf(ArgumentError);
        expect(error.message).to.include(file);
        return error.message;
      };
      const RUN = /column text has a page that cannot be: a run of 2147483647 where 64 values are left.*damaged/;
      expect(await said((page) => void ENDLESS.copy(page, LEVELS[version]))).to.match(RUN);
      const values = VALUES[version];
      expect(await said((page) => void ENDLESS.copy(page, values + 1))).to.match(/a run of 2147483647 where 32 values/);
      if (version === 'v2') {
        // values of no bits take no bytes, however many they are
        const none = (page: Buffer, run: Buffer): void => void (page.writeUInt8(0, values), run.copy(page, values + 1));
        expect(await said((page) => none(page, ENDLESS))).to.match(/a run of 2147483647/);
        expect(await said((page) => none(page, PACKED))).to.match(/a run of 17179869176/);
      }
      // the first text would begin as the one before it
      const first = (page: Buffer): void => void page.writeUInt8(126, values + 4);
      expect(await said(first, `${version}-delta`)).to.match(/a text that begins as none before it/);
    });
});
