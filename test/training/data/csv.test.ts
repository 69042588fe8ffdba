/** CSV as Python's datasets reads it (scripts/fixtures/csv_rows.py), and what is refused. */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { expect } from 'chai';
import { ArgumentError } from '../../../src/base/errors.js';
import { loadExamples, readExamples } from '../../../src/training/data/index.js';
import { load_dataset } from '../../../src/training/datasets/index.js';
import { folderForEach } from '../../support/cleanup.js';
import { rejection } from '../../support/errors.js';

const FILES = 'test/fixtures/data/csv';

describe('CSV', () => {
  const dir = folderForEach('csv');
  const file = (name: string, text: string | Uint8Array): string => {
    const at = path.join(dir(), name);
    fs.writeFileSync(at, text);
    return at;
  };

  const wanted = JSON.parse(fs.readFileSync(`${FILES}/rows.json`, 'utf8')) as Record<string, object[]>;
  for (const [name, rows] of Object.entries(wanted))
    it(`gives the rows that Python's datasets gives: ${name}`, async () => {
      const options = name.startsWith('semicolon') ? { delimiter: ';' } : {};
      const got = await loadExamples(`${FILES}/${name}`, options);
      // whole numbers that no number holds are BigInts, and JSON has none
      expect(got.map((row) => Object.fromEntries(Object.entries(row).map(([key, value]) => [key, typeof value === 'bigint' ? String(value) : value])))).to.deep.equal(rows); // prettier-ignore
      const data = await load_dataset('csv', { data_files: `${FILES}/${name}`, split: 'train', ...options });
      expect(data.to_list()).to.deep.equal(got);
    });

  it('is read by its name, in UTF-16 too, and streamed', async () => {
    const at = file('train.csv', Buffer.from('\uFEFFtext,n\none,1\ntwo,2\n', 'utf16le'));
    const data = await load_dataset(path.dirname(at), { split: 'train' });
    expect(data.to_list()).to.deep.equal([
      { text: 'one', n: 1 },
      { text: 'two', n: 2 },
    ]);
    const seen = [];
    for await (const row of await load_dataset('csv', { data_files: at, split: 'train', streaming: true })) {
      seen.push(row);
      break;
    }
    expect(seen).to.deep.equal([{ text: 'one', n: 1 }]);
    // the file of a stream that is given up is closed, and may be written
    for await (const row of readExamples(at)) {
      expect(row.n).to.equal(1);
      break;
    }
    fs.writeFileSync(at, 'text\nanew\n');
    expect(await loadExamples(at)).to.deep.equal([{ text: 'anew' }]);
  });

  it('numbers that are infinite are numbers', async () => {
    const at = file('x.csv', 'n\ninf\n-Infinity\n1\n');
    expect(await loadExamples(at)).to.deep.equal([{ n: Infinity }, { n: -Infinity }, { n: 1 }]);
  });

  it('holds 25,000 rows to the kinds of the first 10,000', async () => {
    const rows = Array.from({ length: 25_000 }, (_, i) => `line ${i},${i}`);
    const at = file('x.csv', `text,n\n${rows.join('\n')}\n`);
    const all = await loadExamples(at);
    expect(all).to.have.length(25_000);
    expect(all[24_999]).to.deep.equal({ text: 'line 24999', n: 24_999 });
    rows[20_000] = 'line,many';
    const error = await rejection(loadExamples(file('x.csv', `text,n\n${rows.join('\n')}\n`)));
    expect(error).to.be.instanceOf(ArgumentError);
    expect(error.message).to.match(/x\.csv, line 20002: "n" is "many"; the first 10000 rows have a whole number there/);
  });

  it('that is broken is an error with the name of the file', async () => {
    for (const [text, message] of [
      ['', /is empty; expected a first line/],
      ['a,b\n1,2,3\n', /not CSV \(.*record.*line 2/i],
      ['a,b\n"1,2\n', /not CSV \(Quote Not Closed/],
      [Buffer.from('a\ncafé\n', 'latin1'), /is not valid UTF-8/],
    ] as const) {
      const error = await rejection(loadExamples(file('broken.csv', text)));
      expect(error).to.be.instanceOf(ArgumentError);
      expect(error.message).to.include('broken.csv').and.match(message);
    }
  });

  it('options that change nothing in how a file is read are refused', async () => {
    const lines = file('x.jsonl', '{"text":"one"}');
    for (const [at, options] of [
      [lines, { delimiter: ';' }],
      [lines, { field: 'data' }],
      [lines, { sample_by: 'paragraph' }],
      [`${FILES}/plain.csv`, { field: 'data' }],
    ] as const) {
      const error = await rejection(loadExamples(at, options));
      expect(error).to.be.instanceOf(ArgumentError);
      expect(error.message).to.match(/changes nothing in how .* is read: it is for files of/);
    }
    expect((await rejection(loadExamples(lines, { delimiter: '||' }))).message).to.match(/expected one character/);
    const sep = load_dataset('csv', { data_files: `${FILES}/plain.csv`, sep: ';' } as object);
    expect((await rejection(sep)).message).to.match(/sep.*delimiter/);
  });
});
