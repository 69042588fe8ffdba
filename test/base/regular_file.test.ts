import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { expect } from 'chai';
import { ArgumentError, CheckpointError, Mamba2Error } from '../../src/base/errors.js';
import { RandomAccessFile } from '../../src/base/files.js';
import { readBytes } from '../../src/base/regular_file.js';
import { readLines, readTextFile } from '../../src/base/text_files.js';
import { companionFiles } from '../../src/checkpoints/index.js';
import { inspectCheckpoint, openCheckpoint } from '../../src/models/checkpoints.js';
import { inspectState } from '../../src/engine/states/file.js';
import { readExamples } from '../../src/training/data/readers.js';
import { Tokenizer } from '../../src/tokenizers/index.js';
import { folderForEach } from '../support/cleanup.js';
import { rejection } from '../support/errors.js';

async function all(lines: AsyncIterable<unknown>): Promise<unknown[]> {
  const list = [];
  for await (const line of lines) list.push(line);
  return list;
}

describe('files that are none', () => {
  const folder = folderForEach('no-files');
  const readers: Record<string, (dir: string) => Promise<unknown>> = {
    'config.json': openCheckpoint,
    'model.safetensors': (dir) => inspectCheckpoint(path.join(dir, 'model.safetensors')),
    'model.safetensors.index.json': (dir) => inspectCheckpoint(path.join(dir, 'model.safetensors.index.json')),
    'pytorch_model.bin': (dir) => inspectCheckpoint(path.join(dir, 'pytorch_model.bin')),
    'state.safetensors': (dir) => inspectState(path.join(dir, 'state.safetensors')),
    'tokenizer.model': (dir) => Tokenizer.from_pretrained(dir),
    'tokenizer.json': (dir) => Tokenizer.from_pretrained(dir),
    'generation_config.json': companionFiles,
    ...Object.fromEntries(
      ['a.jsonl', 'a.json', 'a.txt', 'a.parquet'].map((name) => [
        name,
        (dir: string) => all(readExamples(path.join(dir, name))),
      ]),
    ),
  };
  for (const [name, read] of Object.entries(readers))
    it(`pipes and devices are refused at once: ${name}`, async () => {
      const file = path.join(folder(), name);
      spawnSync('mkfifo', [file]);
      const error = await rejection(read(folder()));
      expect(error).to.be.instanceOf(Mamba2Error);
      expect(error.message).to.match(/not a regular file/);
      fs.rmSync(file);
      fs.symlinkSync('/dev/zero', file);
      expect((await rejection(read(folder()))).message).to.match(/not a regular file/);
    });
});

describe('files that change while they are read', () => {
  const folder = folderForEach('changing');

  it('are errors: grown, cut or written anew', async () => {
    const file = path.join(folder(), 'x.txt');
    const changes: [string, () => void, RegExp][] = [
      ['grown', () => fs.appendFileSync(file, 'more'), /was changed while it was read/],
      ['cut', () => fs.truncateSync(file, 3), /ended at byte|was changed/],
      ['written anew', () => fs.writeFileSync(file, 'b'.repeat(1_000_000)), /was changed while it was read/],
    ];
    for (const [what, change, message] of changes) {
      fs.writeFileSync(file, 'a\n'.repeat(500_000));
      fs.utimesSync(file, 1, 1);
      const open = await RandomAccessFile.open(file);
      await open.read(0, 10);
      const lines = readLines(file, ArgumentError);
      await lines.next();
      change();
      expect((await rejection(open.read(0, 10))).message, what).to.match(message);
      expect(() => open.readSync(0, 10), what).to.throw(CheckpointError, message);
      expect((await rejection(all(lines))).message, what).to.match(message);
      await open.close();
    }
  });

  it('are bounded in size, and named when they are not there', async () => {
    const file = path.join(folder(), 'x.txt');
    expect((await rejection(readBytes(file, ArgumentError))).message).to.match(/x\.txt: there is no such file/);
    fs.writeFileSync(file, '0123456789');
    expect((await rejection(readTextFile(file, ArgumentError, 9))).message).to.match(/has 10 bytes; at most 9/);
    expect(await readBytes(file, ArgumentError)).to.have.length(10);
  });
});
