/** README.md, ARCHITECTURE.md and docs/: their code runs, what they import is exported, what they link to is there. */
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { expect } from 'chai';
import type { Command } from 'commander';
import { ROOMS } from '../../scripts/lint/import_direction.js';
import { buildProgram } from '../../src/cli/main.js';
import { codeBlocks } from '../support/markdown.js';

const root = fileURLToPath(new URL('../../', import.meta.url));
const read = (file: string): string => fs.readFileSync(path.join(root, file), 'utf8');

/** The source of an entry of the package: '/jit' for tfjs-mamba2/jit, undefined for tfjs-mamba2 itself. */
const sourceOf = (entry = '/index'): string => pathToFileURL(path.join(root, `src${entry}.ts`)).href;

/** The command lines of `mamba2` that a text shows, in blocks and between backticks, each as its words. */
function commandLines(text: string): string[][] {
  const lines = [...text.matchAll(/(?:^ *|[`|] *|npx )mamba2 ([^`\n#|]+)/gm)].map(([, rest]) => rest!);
  return lines.map((line) => line.replace(/"[^"]*"/g, '"…"').replace(/[[\]]/g, ' ').trim().split(/\s+/)); // prettier-ignore
}

/** Follows a command line's words down to its command; refuses a command or an option that is not there. */
function checkCommandLine(words: readonly string[]): void {
  let command: Command = buildProgram();
  for (const word of words) {
    if (word.startsWith('--')) {
      if (word !== '--help') expect(command.options.map(({ long }) => long), words.join(' ')).to.include(word); // prettier-ignore
    } else if (command.commands.length) {
      const next = command.commands.find((each) => each.name() === word);
      if (!next) throw new Error(`mamba2 ${words.join(' ')}: '${command.name()}' has no command '${word}'`);
      command = next;
    }
  }
}

/** Runs modules in a process of their own, as a user's program would be, in a folder that has the models. */
function runModules(sources: readonly string[]): { status: number | null; output: string } {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'readme-'));
  try {
    for (const name of ['models', 'node_modules', 'examples'])
      fs.symlinkSync(path.join(root, name), path.join(dir, name));
    sources.forEach((source, i) =>
      fs.writeFileSync(
        path.join(dir, `${i}.mts`),
        source.replace(/'tfjs-mamba2(\/\w+)?'/g, (_, entry: string | undefined) => `'${sourceOf(entry)}'`),
      ),
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
    const { status, output } = runModules(codeBlocks(read('README.md'), 'ts'));
    expect(status, output).to.equal(0);
    expect(output)
      .to.match(/block 0\nOnce upon a time./)
      .and.to.contain('done');
    expect(output).to.match(/block 1\n\[\s*'Once upon a time.*',\s*'The sea/);
  });

  it('imports what the package exports', async () => {
    const imports = [...read('README.md').matchAll(/^import \{(.*?)\} from 'tfjs-mamba2(\/\w+)?';/gms)];
    expect(imports.length).to.be.greaterThan(5);
    for (const [, names, entry] of imports) {
      const exported = (await import(sourceOf(entry))) as Record<string, unknown>;
      for (const name of names!.split(',')) expect(exported, entry).to.have.property(name.trim());
    }
  });

  it('names commands that exist', () => {
    const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
    const text = read('README.md');
    const named = [...text.matchAll(/npm run ([\w:]+)/g)].map((match) => match[1]!);
    expect(named).to.include('demo');
    for (const name of named) expect(scripts, name).to.have.property(name);
  });

  it('has command lines whose commands and options exist', () => {
    const lines = commandLines(read('README.md'));
    expect(lines.length).to.be.greaterThan(12);
    lines.forEach(checkCommandLine);
    expect(() => checkCommandLine(['gen', '--model', 'DIR'])).to.throw(/no command 'gen'/);
    expect(() => checkCommandLine(['state', 'drop'])).to.throw(/no command 'drop'/);
    expect(() => checkCommandLine(['generate', '--mode', 'DIR'])).to.throw(/--mode/);
  });
});

const DOCS = ['docs/generation.md', 'docs/server.md', 'docs/training.md', 'docs/quantisation.md'];

for (const file of DOCS) {
  it(`${file} has TypeScript that runs, its blocks one after another as one program`, function () {
    this.timeout(300_000);
    const { status, output } = runModules([codeBlocks(read(file), 'ts').join('')]);
    expect(status, output).to.equal(0);
    expect(output).to.contain('done');
  });
}

for (const file of DOCS) {
  it(`${file} has command lines whose commands and options exist`, () =>
    commandLines(read(file)).forEach(checkCommandLine));
}

/** Every document of the repository; fixtures and reports aside. */
const DOCUMENTS = fs
  .readdirSync(root, { withFileTypes: true })
  .filter(({ name }) => !/^(node_modules|dist|etc|test|\..*)$/.test(name))
  .flatMap((entry) =>
    entry.isDirectory()
      ? fs.readdirSync(path.join(root, entry.name), { recursive: true, encoding: 'utf8' }).map((file) => path.join(entry.name, file)) // prettier-ignore
      : [entry.name],
  )
  .filter((file) => file.endsWith('.md'));

it('documents link to files that are there', () => {
  expect(DOCUMENTS).to.include.members(['README.md', 'ARCHITECTURE.md', ...DOCS]);
  for (const file of DOCUMENTS) {
    const targets = [...read(file).matchAll(/\]\((?!https?:)([^)#]+)[^)]*\)/g)].map((match) => match[1]!);
    for (const target of targets)
      expect(fs.existsSync(path.join(root, path.dirname(file), target)), `${file} links to ${target}`).to.equal(true);
  }
});

for (const file of ['CONTRIBUTING.md', 'SECURITY.md'])
  it(`${file} names paths and scripts that are there`, () => {
    const text = read(file);
    const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
    for (const [, name] of text.matchAll(/npm run ([\w:]+)/g)) expect(scripts, name).to.have.property(name!);
    const paths = [...text.matchAll(/[ `(]((?:src|test|scripts|docs|bench|etc)\/[\w./]*\w)/g)].map(
      (match) => match[1]!,
    );
    expect(paths).to.have.length.above(1);
    for (const name of paths) expect(fs.existsSync(path.join(root, name)), name).to.equal(true);
  });

it('ARCHITECTURE.md has the rooms and the arrows that the lint rule keeps', () => {
  const table = [...read('ARCHITECTURE.md').matchAll(/^\| `src\/(\w+)\/` \|.*\| ([^|]*) \|$/gm)];
  const listed = Object.fromEntries(
    table.map(([, room, arrows]): [string, string[]] => [
      room!,
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
