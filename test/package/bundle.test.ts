import { build } from 'esbuild';
import { expect } from 'chai';
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { packageVersion } from '../../src/runtime/version.js';

/** A program as a user has it, that is told the model and the device. */
const PROGRAM = `
import { configureRuntime, deviceReport, pipeline, TextStreamer } from 'tfjs-mamba2';
async function main() {
  const [model, device] = process.argv.slice(2);
  configureRuntime({ compileCache: process.cwd() + '/../kept' });
  const write = await pipeline('text-generation', model, { device });
  const [{ generated_text }] = await write('Once upon a time', { max_new_tokens: 8, do_sample: false });
  const report = deviceReport();
  console.log(JSON.stringify([generated_text, report.package, report.backend, typeof TextStreamer]));
  write.dispose();
}
main();
`;

/** What packages of CommonJS ask of their surroundings; README has the same line. */
const BANNER =
  "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url); const __dirname = import.meta.dirname;";

describe('a program bundled by esbuild', function () {
  this.timeout(120_000);
  let root: string;
  const model = path.resolve('models/tiny-books-mamba2');
  before(() => {
    root = fs.mkdtempSync(path.join(os.tmpdir(), 'tfjs-mamba2-bundle-'));
    fs.mkdirSync(path.join(root, 'project', 'node_modules'), { recursive: true });
    fs.writeFileSync(path.join(root, 'project', 'program.ts'), PROGRAM);
  });
  after(() => fs.rmSync(root, { recursive: true, force: true }));

  /** Bundles into a folder in which nothing else is. @returns the bundle, and what esbuild warns of */
  async function bundle(format: 'cjs' | 'esm', external = false): Promise<{ file: string; warnings: string[] }> {
    const folder = fs.mkdtempSync(path.join(root, `${format}-`));
    const file = path.join(folder, format === 'cjs' ? 'program.cjs' : 'program.mjs');
    const { warnings } = await build({
      entryPoints: [path.join(root, 'project', 'program.ts')],
      outfile: file,
      bundle: true,
      platform: 'node',
      format,
      logLevel: 'silent',
      alias: { 'tfjs-mamba2': path.resolve('src/index.ts') },
      ...(external && { packages: 'external' as const }),
      ...(format === 'esm' && { banner: { js: BANNER } }),
    });
    return { file, warnings: warnings.map(({ id }) => id) };
  }

  function run(file: string, args: readonly string[], env: Record<string, string> = {}) {
    const { stdout, stderr, status } = spawnSync(process.execPath, [file, ...args], {
      cwd: path.dirname(file),
      encoding: 'utf8',
      env: { ...process.env, NODE_OPTIONS: '', ...env },
    });
    return { out: stdout && (JSON.parse(stdout) as string[]), err: stderr, code: status };
  }

  const expected = (backend: string): string[] => {
    const text = 'Once upon a time of year, and a little girl,';
    return [text, packageVersion(), backend, 'function'];
  };

  for (const format of ['cjs', 'esm'] as const)
    it(`as ${format}, alone in a folder: it writes, with TensorFlow and with WebAssembly`, async () => {
      const { file, warnings } = await bundle(format);
      expect(warnings).to.deep.equal(format === 'cjs' ? ['empty-import-meta'] : []);
      for (const native of format === 'cjs' ? ['1', '0'] : ['1']) {
        const { out, err, code } = run(file, [model, 'cpu'], { TFJS_MAMBA2_NATIVE: native });
        expect(code, err).to.equal(0);
        expect(out).to.deep.equal(expected('tensorflow'));
        // the tokenizer in JavaScript, said in one line
        expect(err.match(/Warning: /g)).to.have.length(1);
        expect(err).to.match(/The package tokenizers does not load .*--packages=external/);
      }
      const without = run(file, [model, 'wasm']);
      expect(without.code).to.equal(1);
      expect(without.err).to.match(/DeviceError: The files of the WebAssembly backend .*beside the bundle/);
      const wasm = path.resolve('node_modules/@tensorflow/tfjs-backend-wasm/dist');
      for (const name of fs.readdirSync(wasm).filter((each) => each.endsWith('.wasm')))
        fs.copyFileSync(path.join(wasm, name), path.join(path.dirname(file), name));
      const { out, err, code } = run(file, [model, 'wasm']);
      expect(code, err).to.equal(0);
      expect(out).to.deep.equal(expected('wasm'));
    });

  for (const format of ['cjs', 'esm'] as const)
    it(`as ${format} without its packages, which are beside it: the native tokenizer, and no warning`, async () => {
      const { file } = await bundle(format, true);
      fs.symlinkSync(path.resolve('node_modules'), path.join(path.dirname(file), 'node_modules'));
      const { out, err, code } = run(file, [model, 'cpu']);
      expect(code, err).to.equal(0);
      expect(out).to.deep.equal(expected('tensorflow'));
      expect(err).to.equal('');
    });

  it('says what it lacks where a file of the package is needed', async () => {
    const { file } = await bundle('cjs');
    const { err, code } = run(file, ['tiny-books-mamba2', 'cpu']);
    expect(code).to.equal(1);
    expect(err).to.match(/CheckpointError: The model tiny-books-mamba2 travels in the package .*Copy/);
  });

  it('is bundled as the README says', () => {
    expect(fs.readFileSync('README.md', 'utf8')).to.include(BANNER);
  });

  it('knows the version of the package', () => {
    const { version } = JSON.parse(fs.readFileSync('package.json', 'utf8')) as { version: string };
    expect(packageVersion()).to.equal(version);
  });
});
