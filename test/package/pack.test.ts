import { expect } from 'chai';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { installInto, installScripts, packInto, runIn } from './support.js';

describe('the packed package', function () {
  this.timeout(180000);
  let folder: string;
  let project: string;
  let files: string[];
  before(() => {
    folder = fs.mkdtempSync(path.join(os.tmpdir(), 'tfjs-mamba2-pack-'));
    project = path.join(folder, 'project');
    const packed = packInto(folder);
    files = packed.files;
    installInto(project, packed.tarball);
  });
  after(() => fs.rmSync(folder, { recursive: true, force: true }));

  it('holds built code and types, and no sources or tests', () => {
    expect(files).to.include.members([
      'bin/mamba2.js',
      'dist/cli/main.js',
      'dist/runtime/index.d.ts',
      'native/stderr_guard.cc',
    ]);
    expect(files.filter((file) => /^(src|test|models|scripts)\//.test(file))).to.deep.equal([]);
  });

  it('downloads nothing when it is installed: its packages with an install script are the known harmless ones', () => {
    // core-js prints a banner there
    expect(installScripts(project)).to.deep.equal(['node_modules/core-js']);
    expect(fs.existsSync(path.join(project, 'node_modules/@tensorflow/tfjs-node-gpu'))).to.equal(false);
  });

  it('npx mamba2 setup and env work there', () => {
    const setup = runIn(project, 'npx', ['mamba2', 'setup']);
    expect(setup.code, setup.err).to.equal(0);
    expect(setup.out).to.match(/^TensorFlow 2\.\d+\.\d+ .* is /);
    const env = runIn(project, 'npx', ['mamba2', 'env', '--json']);
    expect(env.code, env.err).to.equal(0);
    expect(JSON.parse(env.out)).to.include({ backend: 'tensorflow' });
  });

  it('without a runtime it runs on WebAssembly', () => {
    const env = runIn(project, 'npx', ['mamba2', 'env', '--json'], { XDG_CACHE_HOME: path.join(folder, 'none') });
    expect(env.code, env.err).to.equal(0);
    expect(JSON.parse(env.out)).to.include({ backend: 'wasm', runtime: null });
  });
});
