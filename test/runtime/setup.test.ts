import { expect } from 'chai';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { explainNpm, explainPip } from '../../src/runtime/setup_failure.js';
import { setupRuntime } from '../../src/runtime/setup.js';
import { DeviceError } from '../../src/base/errors.js';
import { mamba2 } from '../cli/support.js';

/** A folder of programs to be found on the PATH: real ones linked, others made up of a shell script. */
function programs(folder: string, made: Record<string, string>, linked: readonly string[] = []): string {
  fs.mkdirSync(folder, { recursive: true });
  for (const [name, script] of Object.entries(made)) {
    fs.writeFileSync(path.join(folder, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  }
  const find = (name: string) =>
    (process.env.PATH ?? '')
      .split(':')
      .map((place) => path.join(place, name))
      .find((file) => fs.existsSync(file)) as string;
  for (const name of linked) fs.symlinkSync(find(name), path.join(folder, name));
  return folder;
}

describe('setupRuntime', function () {
  this.timeout(30000);
  let root: string;
  let cache: string;
  beforeEach(() => {
    root = fs.mkdtempSync(path.join(os.tmpdir(), 'tfjs-mamba2-test-'));
    cache = path.join(root, 'cache');
  });
  afterEach(() => fs.rmSync(root, { recursive: true }));

  /** Runs set-up with these programs; the cache folder must be left without a runtime or a half of one. */
  function fails(PATH: string, args: string[] = [], env: Record<string, string> = {}): string {
    const { code, err } = mamba2(['setup', ...args], { env: { PATH, XDG_CACHE_HOME: cache, CXX: '', ...env } });
    expect(code).to.equal(1);
    const left = fs.existsSync(cache) ? fs.readdirSync(path.join(cache, 'tfjs-mamba2', 'runtime')) : [];
    expect(left).to.deep.equal([]);
    expect(err).to.include('Until then models run on WebAssembly');
    return err;
  }
  const ok = 'echo fine';

  it('without a compiler', () => {
    const bin = programs(path.join(root, 'bin'), { python3: ok, npm: ok });
    expect(fails(bin)).to.match(/No C\+\+ compiler was found \(g\+\+ or c\+\+\).*apt install g\+\+/);
    expect(fails(bin, [], { CXX: 'my-cxx' })).to.match(/No C\+\+ compiler was found \(my-cxx\)/);
  });

  it('without Python, without pip', () => {
    const bin = programs(path.join(root, 'bin'), { 'g++': ok, npm: ok });
    expect(fails(bin)).to.match(/python3 was not found.*apt install python3-pip.*--libtensorflow DIR/);
    programs(bin, { python3: 'echo "/usr/bin/python3: No module named pip" >&2; exit 1' });
    expect(fails(bin)).to.match(/python3 has no pip.*apt install python3-pip/);
  });

  it('without npm, without a network', () => {
    const bin = programs(path.join(root, 'bin'), { 'g++': ok, python3: ok });
    expect(fails(bin)).to.match(/npm was not found/);
    programs(bin, {
      npm: 'test "$1" = --version || { echo "npm error code ENOTFOUND" >&2; echo "npm error network" >&2; exit 1; }',
    });
    expect(fails(bin)).to.match(/npm could not reach its registry to fetch @tensorflow\/tfjs-node-gpu@4\.22\.0/);
  });

  it('refuses packages that are not the published ones', () => {
    // packs an empty file in place of each package
    const npm = `test "$1" = --version && exit 0
while [ "$1" != --pack-destination ]; do shift; done
for name in tensorflow-tfjs-node-gpu-4.22.0 google-protobuf-3.21.4 progress-2.0.3 node-api-headers-1.9.0; do : > "$2/$name.tgz"; done`;
    const bin = programs(path.join(root, 'bin'), { 'g++': ok, python3: ok, npm });
    expect(fails(bin)).to.match(/@tensorflow\/tfjs-node-gpu@4\.22\.0 that npm fetched is not the one published/);
  });

  it('two at once go one after the other, also when one is killed', async () => {
    const log = path.join(root, 'log');
    const npm = `test "$1" = --version && exit 0
echo begin >> ${log}; sleep 1; echo end >> ${log}; echo "npm error code ENOTFOUND" >&2; exit 1`;
    const PATH = programs(path.join(root, 'bin'), { 'g++': ok, python3: ok, npm }, ['sleep']);
    const env = { ...process.env, PATH, XDG_CACHE_HOME: cache, CXX: '', NODE_OPTIONS: '' };
    const start = () =>
      spawn(process.execPath, ['bin/mamba2.js', 'setup'], { env, stdio: ['ignore', 'ignore', 'pipe'] });
    const ended = async (child: ReturnType<typeof start>): Promise<string> => {
      let said = '';
      child.stderr.setEncoding('utf8').on('data', (text: string) => (said += text));
      await once(child, 'close');
      return said;
    };
    const said = await Promise.all([start(), start()].map(ended));
    expect(fs.readFileSync(log, 'utf8')).to.equal('begin\nend\nbegin\nend\n');
    expect(said.filter((text) => /waiting for another set-up/.test(text))).to.have.length(1);
    for (const text of said) expect(text).to.match(/npm could not reach its registry/);
    fs.rmSync(log);
    const first = start();
    const over = ended(first);
    while (!fs.existsSync(log)) await new Promise((go) => setTimeout(go, 20));
    const second = ended(start());
    first.kill('SIGKILL');
    await over;
    expect(await second).to.match(/npm could not reach its registry/);
    expect(fs.readdirSync(path.join(cache, 'tfjs-mamba2', 'runtime'))).to.deep.equal([]);
  });

  it('with a folder of libraries that is none', async () => {
    try {
      await setupRuntime({ libtensorflow: root, force: true });
      expect.fail('no error');
    } catch (error) {
      expect(error).to.be.instanceOf(DeviceError);
      expect((error as Error).message).to.include(`${root} holds no libtensorflow_cc.so.2`);
    }
  });

  it('tells a missing wheel, a full disk and a changed file apart', () => {
    const finished = (stderr: string) => ({ code: 1, missing: false, stdout: '', stderr });
    const pip = (stderr: string) => explainPip(finished(stderr), 'python3', 'tensorflow-cpu==2.21.0').message;
    expect(pip('ERROR: No matching distribution found for tensorflow-cpu==2.21.0')).to.include('has no wheel of');
    expect(
      pip(
        'WARNING: Retrying (Retry(total=4)) after connection broken by NewConnectionError\n' +
          'ERROR: No matching distribution found for tensorflow-cpu==2.21.0',
      ),
    ).to.include('pip could not reach its package index');
    expect(pip('OSError: [Errno 28] No space left on device')).to.match(/^The disk is full/);
    expect(pip('THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE')).to.include(
      'not the one published',
    );
    expect(explainNpm(finished('npm error code E404'), 'x@1').message).to.include('registry in use has no x@1');
  });
});
