// Makes a fresh clone ready: installs the dependencies when they are not those of the lock file, and sets up TensorFlow.
// Node's own modules only, since nothing else may be there yet.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('../..', import.meta.url));

function read(file) {
  try {
    return JSON.parse(readFileSync(`${root}/${file}`, 'utf8')).packages;
  } catch {
    return {};
  }
}

/** Whether node_modules holds the versions of package-lock.json (what is optional may be absent). */
export function dependenciesAreCurrent() {
  const installed = read('node_modules/.package-lock.json');
  return Object.entries(read('package-lock.json')).every(
    ([place, { version, optional }]) => place === '' || optional || installed[place]?.version === version,
  );
}

/** Runs a program in the checkout, its output shown; returns its exit code. */
export function run(program, args, stdio = 'inherit') {
  const { status, error } = spawnSync(program, args, { cwd: root, stdio });
  if (error) process.stderr.write(`${program}: ${error.message}\n`);
  return status ?? 1;
}

export function ensureDependencies() {
  const [major] = process.versions.node.split('.');
  if (Number(major) < 20) {
    process.stderr.write(`Node.js 20 or newer is needed; this is ${process.versions.node}.\n`);
    process.exit(1);
  }
  if (dependenciesAreCurrent()) return;
  process.stderr.write('installing the dependencies (npm ci)\n');
  if (run('npm', ['ci', '--no-audit', '--no-fund'], ['ignore', 2, 2]) === 0) return;
  process.stderr.write('npm ci failed; see above. Check the network and the npm registry in use, then try again.\n');
  process.exit(1);
}

/** Sets up TensorFlow unless it is there; returns whether it can be used. The command says on stderr what it does. */
export function ensureRuntime() {
  return run(process.execPath, ['bin/mamba2.js', 'setup'], ['ignore', 'ignore', 2]) === 0;
}
