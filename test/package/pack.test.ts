import { expect } from 'chai';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { loadGolden } from '../support/goldens.js';
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
      'native/host_kernels.cc',
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

  it('npx mamba2 generate writes the same text there', () => {
    const runs = loadGolden('books-model').json.runs as { prompt: string; full_text: string; new_tokens: number[] }[];
    const { prompt, full_text, new_tokens } = runs[0]!;
    const args = ['mamba2', 'generate', '--model', path.resolve('models/tiny-books-mamba2')];
    const result = runIn(project, 'npx', [...args, '--max-new-tokens', String(new_tokens.length), prompt]);
    expect(result).to.deep.equal({ code: 0, out: `${full_text}\n`, err: '' });
  });

  it('exports the library, with types', () => {
    const code = "import { pipeline } from 'tfjs-mamba2'; console.log(typeof pipeline);";
    expect(runIn(project, process.execPath, ['--input-type=module', '-e', code])).to.deep.equal({
      code: 0,
      out: 'function\n',
      err: '',
    });
    expect(files).to.include('dist/index.d.ts');
  });

  it('without a runtime it runs on WebAssembly', () => {
    const env = runIn(project, 'npx', ['mamba2', 'env', '--json'], { XDG_CACHE_HOME: path.join(folder, 'none') });
    expect(env.code, env.err).to.equal(0);
    expect(JSON.parse(env.out)).to.include({ backend: 'wasm', runtime: null });
  });
});
