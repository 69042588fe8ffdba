import { expect } from 'chai';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { pruneCache } from '../../src/runtime/prune.js';

describe('pruneCache', () => {
  let root: string;
  beforeEach(() => void (root = fs.mkdtempSync(path.join(os.tmpdir(), 'prune-'))));
  afterEach(() => fs.rmSync(root, { recursive: true, force: true }));

  /** A file of some bytes that was read and written an hour of 2026 ago. */
  function file(name: string, bytes: number, hour: number, read = hour): void {
    const at = path.join(root, name);
    fs.mkdirSync(path.dirname(at), { recursive: true });
    fs.writeFileSync(at, Buffer.alloc(bytes));
    const time = (h: number): Date => new Date(Date.UTC(2026, 0, 1, h));
    fs.utimesSync(at, time(read), time(hour));
  }
  const left = (): string[] =>
    (fs.readdirSync(root, { recursive: true }) as string[])
      .filter((name) => fs.statSync(path.join(root, name)).isFile())
      .sort();

  it('takes out what was used longest ago, and no more than it must', () => {
    file('old', 100, 1);
    file('older', 100, 0);
    file('read', 100, 0, 5); // written early, read late
    file('new', 100, 4);
    expect(pruneCache(root, 400)).to.equal(0);
    expect(pruneCache(root, 250)).to.equal(2);
    expect(left()).to.deep.equal(['new', 'read']);
    expect(pruneCache(root, 0)).to.equal(2);
    expect(left()).to.deep.equal([]);
  });

  it('takes folders as a whole at depth 1, and files one by one below folders at depth 2', () => {
    file('a/graph', 100, 0);
    file('a/signatures', 10, 3);
    file('b/graph', 100, 1);
    expect(pruneCache(root, 150)).to.equal(1);
    expect(left()).to.deep.equal(['a/graph', 'a/signatures']);
    file('b/graph', 100, 1);
    expect(pruneCache(root, 150, 2)).to.equal(1);
    expect(left()).to.deep.equal(['a/signatures', 'b/graph']);
  });

  it('leaves alone what is not there', () => {
    expect(pruneCache(path.join(root, 'none'), 0)).to.equal(0);
  });
});
