/** README.md, ARCHITECTURE.md and docs/: their code runs, what they import is exported, what they link to is there. */
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { expect } from 'chai';
import * as api from '../../src/index.js';
import { ROOMS } from '../../scripts/lint/import_direction.js';

const root = fileURLToPath(new URL('../../', import.meta.url));
const read = (file: string): string => fs.readFileSync(path.join(root, file), 'utf8');

/** Code blocks of a language. */
function blocks(text: string, language: string): string[] {
  return [...text.matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\``, 'gms'))].map((match) => match[1]!);
}

/** Runs modules in a process of their own, as a user's program would be, in a folder that has the models. */
function runModules(sources: readonly string[]): { status: number | null; output: string } {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'readme-'));
  try {
    for (const name of ['models', 'node_modules']) fs.symlinkSync(path.join(root, name), path.join(dir, name));
    const index = pathToFileURL(path.join(root, 'src/index.ts')).href;
    sources.forEach((source, i) =>
      fs.writeFileSync(path.join(dir, `${i}.mts`), source.replaceAll("'tfjs-mamba2'", `'${index}'`)),
    );
    const main = sources.map((_, i) => `console.log('block ${i}');\nawait import('./${i}.mts');`).join('\n');
    fs.writeFileSync(path.join(dir, 'main.mts'), `${main}\nconsole.log('done');\n`);
    const { status, stdout, stderr } = spawnSync(process.execPath, ['--import', 'tsx', 'main.mts'], {
      cwd: dir,
      encoding: 'utf8',
    });
    return { status, output: stdout + stderr };
  } finally {
    fs.rmSync(dir, { recursive: true });
  }
}

describe('README.md', () => {
  it('has TypeScript that runs', function () {
    this.timeout(300_000);
    const { status, output } = runModules(blocks(read('README.md'), 'ts'));
    expect(status, output).to.equal(0);
    expect(output)
      .to.match(/block 0\nOnce upon a time./)
      .and.to.contain('done');
    expect(output).to.match(/block 1\n\[\s*'Once upon a time.*',\s*'The sea/);
  });

  it('imports what the package exports', () => {
    const imported = [...read('README.md').matchAll(/^import \{(.*?)\} from 'tfjs-mamba2';/gms)].flatMap(([, names]) =>
      names!.split(','),
    );
    expect(imported.length).to.be.greaterThan(5);
    for (const name of imported) expect(api).to.have.property(name.trim());
  });

  it('names commands that exist', () => {
    const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
    const text = read('README.md');
    const named = [...text.matchAll(/npm run ([\w:]+)/g)].map((match) => match[1]!);
    expect(named).to.include('demo');
    for (const name of named) expect(scripts, name).to.have.property(name);
    const commands = read('src/cli/commands.ts') + read('src/cli/main.ts');
    for (const [, name] of text.matchAll(/^mamba2 (\w+)/gm)) expect(commands, `mamba2 ${name}`).to.contain(name);
  });
});

const DOCS = ['docs/generation.md', 'docs/training.md', 'docs/quantisation.md'];

for (const file of DOCS) {
  it(`${file} has TypeScript that runs, its blocks one after another as one program`, function () {
    this.timeout(300_000);
    const { status, output } = runModules([blocks(read(file), 'ts').join('')]);
    expect(status, output).to.equal(0);
    expect(output).to.contain('done');
  });
}

for (const file of ['README.md', 'ARCHITECTURE.md', ...DOCS]) {
  it(`${file} links to files that are there`, () => {
    const targets = [...read(file).matchAll(/\]\((?!https?:)([^)#]+)\)/g)].map((match) => match[1]!);
    for (const target of targets)
      expect(fs.existsSync(path.join(root, path.dirname(file), target)), target).to.equal(true);
  });
}

it('ARCHITECTURE.md has the rooms and the arrows that the lint rule keeps', () => {
  const table = [...read('ARCHITECTURE.md').matchAll(/^\| `src\/(\w+)\/` \|.*\| ([^|]*) \|$/gm)];
  const listed = Object.fromEntries(
    table.map(([, room, arrows]) => [
      room,
      arrows === '–'
        ? []
        : arrows!
            .split(',')
            .map((a) => a.trim())
            .sort(),
    ]),
  );
  const kept = Object.fromEntries(Object.entries(ROOMS).map(([room, to]) => [room, [...to].sort()]));
  expect(listed).to.deep.equal(kept);
});
