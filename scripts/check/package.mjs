// What dist/ and package.json make as a package: publint looks at its entries and files, attw (are the types wrong) resolves every entry
// as TypeScript does. The package is ES modules alone, so that CommonJS and the resolution of Node 10 are no failures.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));
const folder = mkdtempSync(path.join(tmpdir(), 'package-'));

function run(program, ...args) {
  const { status, stdout, stderr } = spawnSync(program, args, { cwd: root, encoding: 'utf8' });
  if (status === 0) return stdout;
  process.stderr.write(`${program} ${args.join(' ')}\n${stdout}${stderr}`);
  process.exit(1);
}

process.on('exit', () => rmSync(folder, { recursive: true }));
const [{ filename }] = JSON.parse(run('npm', 'pack', '--ignore-scripts', '--json', '--pack-destination', folder));
const tarball = path.join(folder, filename);
const bin = (name) => path.join(root, 'node_modules/.bin', name);
run(bin('publint'), 'run', tarball, '--strict');
run(bin('attw'), tarball, '--profile', 'esm-only');
