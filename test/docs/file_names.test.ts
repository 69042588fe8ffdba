import fs from 'node:fs';
import path from 'node:path';
import { expect } from 'chai';

/** Folders whose names are ours; fixtures and models are named by those who made them. */
const FOLDERS = ['src', 'test', 'scripts', 'bench', 'examples', 'bin', 'native', 'docs'];
/** Documents that are found by their names in any repository. */
const DOCUMENT = /^[A-Z]+\.md$/;

function namesBelow(folder: string): string[] {
  return fs.readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const name = path.join(folder, entry.name);
    if (name === path.join('test', 'fixtures') || entry.name.startsWith('.') || entry.name === '__pycache__') return [];
    return entry.isDirectory() ? [name, ...namesBelow(name)] : [name];
  });
}

it('files and folders are named in snake_case', () => {
  const names = FOLDERS.flatMap(namesBelow).filter((name) => !DOCUMENT.test(path.basename(name)));
  expect(names.length).to.be.above(300);
  expect(names.filter((name) => !/^[a-z0-9_]+(\.[a-z0-9_]+)*$/.test(path.basename(name)))).to.deep.equal([]);
});
