/** The package's text under other runtimes than Node.js, where they are on the PATH: `PATH=$PATH:FOLDER/node_modules/.bin`. */
import { expect } from 'chai';
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';

const RUNTIMES = { bun: ['--bun'], deno: ['run', '-A', '--node-modules-dir=manual'] } as const;
const BIN = path.resolve('bin/mamba2.js');
const COMMAND = [
  'generate',
  '--model',
  'tiny-books-mamba2',
  'Once upon a time',
  '--max-new-tokens',
  '20',
  '--device',
  'cpu',
];

const run = (program: string, args: readonly string[]): { status: number | null; stdout: string; stderr: string } => {
  const env = { ...process.env, NO_COLOR: '1' };
  const { status, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8', env, timeout: 120_000 });
  return { status, stdout, stderr };
};

for (const [runtime, args] of Object.entries(RUNTIMES)) {
  const there = run(runtime, ['--version']).status === 0;

  it(`${runtime} writes what Node.js writes, and nothing of TensorFlow's beside it`, function () {
    this.timeout(300_000);
    // Deno runs built code alone
    if (!there || !fs.existsSync('dist/node/main.js')) this.skip();
    const expected = run(process.execPath, [BIN, ...COMMAND]);
    const got = run(runtime, [...args, BIN, ...COMMAND]);
    expect(got.stderr).to.equal('');
    expect(got).to.deep.equal(expected);
  });

  it(`env says that it is ${runtime}`, function () {
    this.timeout(120_000);
    if (!there || !fs.existsSync('dist/node/main.js')) this.skip();
    expect(run(runtime, [...args, BIN, 'env']).stdout).to.match(new RegExp(`^${runtime} +\\d+\\.`, 'im'));
  });
}

it('under Deno a checkout that was not built says what to do', () => {
  const asDeno = `Object.defineProperty(process, 'versions', { value: { ...process.versions, deno: '2.9.6' } })`;
  const folder = fs.mkdtempSync('unbuilt-');
  try {
    fs.mkdirSync(path.join(folder, 'src/cli'), { recursive: true });
    fs.mkdirSync(path.join(folder, 'bin'));
    fs.writeFileSync(path.join(folder, 'src/cli/main.ts'), '');
    fs.copyFileSync(BIN, path.join(folder, 'bin/mamba2.js'));
    const { status, stderr } = run(process.execPath, [
      '--import',
      `data:text/javascript,${asDeno}`,
      path.join(folder, 'bin/mamba2.js'),
      'env',
    ]);
    expect(status).to.equal(1);
    expect(stderr).to.include('npm run build');
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
});
