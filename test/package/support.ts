/** The package as a user gets it: packed, and installed into an empty project. */
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';

function npm(args: readonly string[], cwd: string): string {
  const { status, stdout, stderr } = spawnSync('npm', args, { cwd, encoding: 'utf8', env: cleanEnvironment() });
  if (status !== 0) throw new Error(`npm ${args.join(' ')} failed:\n${stdout}${stderr}`);
  return stdout;
}

/** An outer `npm test` hands its settings down; a user's shell has none of them. */
function cleanEnvironment(extra: Record<string, string> = {}): NodeJS.ProcessEnv {
  const entries = Object.entries(process.env).filter(([name]) => !/^npm_(config_|package_|lifecycle_)/.test(name));
  return { ...Object.fromEntries(entries), NODE_OPTIONS: '', ...extra };
}

/** Builds the sources and packs them as `npm pack` does; returns the files that the package lists. */
export function packInto(folder: string): { tarball: string; files: string[] } {
  // In a copy, so that the checkout's own dist stays as it is.
  const copy = path.join(folder, 'copy');
  fs.mkdirSync(copy);
  const { files } = JSON.parse(fs.readFileSync('package.json', 'utf8')) as { files: string[] };
  for (const name of [
    'src',
    'scripts/build_node.mjs',
    'scripts/build_web.mjs',
    'package.json',
    'tsconfig.json',
    'tsconfig.build.json',
    ...files,
  ])
    if (name !== 'dist' && fs.existsSync(name)) fs.cpSync(name, path.join(copy, name), { recursive: true });
  fs.symlinkSync(path.resolve('node_modules'), path.join(copy, 'node_modules'));
  npm(['run', '--silent', 'build'], copy);
  const packs = JSON.parse(npm(['pack', '--ignore-scripts', '--json', '--pack-destination', folder], copy)) as {
    filename: string;
    files: { path: string }[];
  }[];
  const packed = packs[0]!;
  return { tarball: path.join(folder, packed.filename), files: packed.files.map((file) => file.path) };
}

/** An empty project with nothing but the tarball in it, installed with scripts allowed as npm does by default. */
export function installInto(project: string, tarball: string): void {
  fs.mkdirSync(project);
  fs.writeFileSync(
    path.join(project, 'package.json'),
    JSON.stringify({ name: 'empty', private: true, type: 'module' }),
  );
  addTo(project, tarball);
}

/** Adds a package to a project, as `npm install` does. */
export function addTo(project: string, what: string): void {
  npm(['install', '--ignore-scripts=false', '--prefer-offline', '--no-audit', '--no-fund', what], project);
}

/** Where a project has copies of a package. */
export function copiesOf(project: string, name: string): string[] {
  return Object.keys(lockOf(project)).filter((place) => place.endsWith(`node_modules/${name}`));
}

type Lock = Record<string, { hasInstallScript?: boolean }>;

function lockOf(project: string): Lock {
  return (JSON.parse(fs.readFileSync(path.join(project, 'package-lock.json'), 'utf8')) as { packages: Lock }).packages;
}

/** The packages installed in a project that have an install script of their own. */
export function installScripts(project: string): string[] {
  return Object.entries(lockOf(project))
    .filter(([, entry]) => entry.hasInstallScript)
    .map(([place]) => place);
}

/** Runs a program in the project, as its user would type it. */
export function runIn(project: string, command: string, args: readonly string[], env: Record<string, string> = {}) {
  const { status, stdout, stderr } = spawnSync(command, args, {
    cwd: project,
    encoding: 'utf8',
    env: cleanEnvironment(env),
  });
  return { code: status, out: stdout, err: stderr };
}
