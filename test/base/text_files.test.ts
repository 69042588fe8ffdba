import { execFileSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import * as os from 'node:os';
import path from 'node:path';
import { expect } from 'chai';
import { ArgumentError, TokenizerError } from '../../src/base/errors.js';
import { decodeText, readJsonFile, readLines, readTextFile, readTextFileIfThere } from '../../src/base/text_files.js';
import { rejection } from '../support/errors.js';

const TEXT = 'one — naïve café\r\ntwo 👩‍👩‍👧\n\nthree';
const MARK = '\uFEFF';

function utf16be(text: string): Buffer {
  return Buffer.from(text, 'utf16le').swap16();
}

describe('text files', () => {
  let dir: string;
  beforeEach(async () => void (dir = await mkdtemp(path.join(os.tmpdir(), 'text-'))));
  afterEach(() => rm(dir, { recursive: true }));
  const file = async (name: string, bytes: Uint8Array | string): Promise<string> => {
    const at = path.join(dir, name);
    await writeFile(at, bytes);
    return at;
  };

  it('in JSON may be nested 500 levels deep; deeper ones are errors with the name of the file', async () => {
    const nested = (levels: number): string => '['.repeat(levels) + ']'.repeat(levels);
    expect(await readJsonFile(await file('fine.json', nested(500)), ArgumentError)).to.be.an('array');
    expect(
      await readJsonFile(await file('wide.json', JSON.stringify(new Array(5000).fill([]))), ArgumentError),
    ).to.have.length(5000);
    for (const text of [nested(502), nested(50_000), `{"version": ${'{"a":'.repeat(600)}1${'}'.repeat(600)}}`]) {
      const error = await rejection(readJsonFile(await file('deep.json', text), TokenizerError));
      expect(error).to.be.instanceOf(TokenizerError);
      expect(error.message).to.match(/deep\.json: lists and objects lie in each other deeper than 500 levels/);
    }
  });

  it('are the same text in UTF-8 and UTF-16, with a byte-order mark or, in UTF-8, without', async () => {
    const forms: [string, Uint8Array][] = [
      ['plain', Buffer.from(TEXT)],
      ['marked', Buffer.from(MARK + TEXT)],
      ['utf-16le', Buffer.from(MARK + TEXT, 'utf16le')],
      ['utf-16be', utf16be(MARK + TEXT)],
    ];
    for (const [name, bytes] of forms) {
      const at = await file(name, bytes);
      expect(await readTextFile(at, ArgumentError), name).to.equal(TEXT);
      const lines: [string, number][] = [];
      for await (const line of readLines(at, ArgumentError)) lines.push(line);
      expect(lines, name).to.deep.equal([
        ['one — naïve café', 1],
        ['two 👩‍👩‍👧', 2],
        ['', 3],
        ['three', 4],
      ]);
    }
    expect(decodeText(Buffer.from(MARK + MARK + 'x'), 'f', ArgumentError)).to.equal(MARK + 'x');
  });

  it('in another encoding are errors that name the file and the byte', async () => {
    const latin1 = await file('latin1.txt', Buffer.from('naïve café', 'latin1'));
    for (const read of [(): Promise<unknown> => readTextFile(latin1, TokenizerError), () => collect(latin1)]) {
      const error = await rejection(read());
      expect(error).to.be.instanceOf(TokenizerError);
      expect(error.message).to.include(latin1).and.include('byte 2');
    }
    for (const [name, bytes] of [
      ['without-mark', Buffer.from('plain text', 'utf16le')],
      ['utf-32', Buffer.from([0xff, 0xfe, 0, 0, 0x61, 0, 0, 0])],
      ['cut', Buffer.from('é').subarray(0, 1)],
    ] as const) {
      const at = await file(name, bytes);
      expect((await rejection(readTextFile(at, TokenizerError))).message, name).to.include(at);
      expect((await rejection(collect(at))).message, name).to.include(at);
    }
  });

  it('have lines that are cut anywhere by the pieces in which they are read', async () => {
    const long = `${'é'.repeat(300_000)}\n${'👩'.repeat(200_000)}\nx`;
    const at = await file('long', MARK + long);
    expect((await collect(at)).join('\n')).to.equal(long);
  });

  it('that are none are refused, and not waited for', async () => {
    const pipe = path.join(dir, 'pipe');
    execFileSync('mkfifo', [pipe]);
    for (const at of [pipe, '/dev/zero', dir]) {
      expect((await rejection(readTextFile(at, ArgumentError))).message).to.include('not a regular file');
      expect((await rejection(collect(at))).message).to.include('not a regular file');
    }
    const absent = path.join(dir, 'absent');
    expect((await rejection(readTextFile(absent, ArgumentError))).message).to.include('there is no such file');
    expect(await readTextFileIfThere(absent, ArgumentError)).to.equal(null);
    const big = await file('big', 'x'.repeat(100));
    expect((await rejection(readTextFile(big, ArgumentError, 99))).message).to.include('100 bytes');
  });

  it('in JSON name the file that is wrong', async () => {
    expect(await readJsonFile(await file('a.json', `${MARK}[1]`), ArgumentError)).to.deep.equal([1]);
    const at = await file('broken.json', '[\n1,\n]');
    const error = await rejection(readJsonFile(at, TokenizerError));
    expect(error).to.be.instanceOf(TokenizerError);
    expect(error.message).to.include(at).and.include('not valid JSON');
  });

  async function collect(at: string): Promise<string[]> {
    const lines: string[] = [];
    for await (const [line] of readLines(at, TokenizerError)) lines.push(line);
    return lines;
  }
});
