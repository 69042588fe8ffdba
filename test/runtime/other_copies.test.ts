/** A program with two copies of TensorFlow.js is told so, once, whichever is loaded first. */
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { expect } from 'chai';

describe('another copy of TensorFlow.js', function () {
  this.timeout(60_000);
  let dir: string;
  let copy: string;
  before(() => {
    dir = fs.mkdtempSync(path.join(os.tmpdir(), 'other-copy-'));
    const modules = path.resolve('node_modules');
    const core = path.join(dir, 'node_modules/@tensorflow/tfjs-core');
    const built = path.join(modules, '@tensorflow/tfjs-core');
    fs.mkdirSync(path.join(core, 'dist'), { recursive: true });
    for (const file of ['package.json', 'dist/tf-core.node.js'])
      fs.copyFileSync(path.join(built, file), path.join(core, file));
    for (const name of ['long', 'seedrandom', 'node-fetch'])
      if (fs.existsSync(path.join(modules, name)))
        fs.symlinkSync(path.join(modules, name), path.join(dir, 'node_modules', name));
    copy = path.join(core, 'dist/tf-core.node.js');
  });
  after(() => fs.rmSync(dir, { recursive: true, force: true }));

  /** Warnings of a program that imports these, one after another. */
  function warnings(...imports: string[]): string[] {
    const code = imports.map((file) => `await import(${JSON.stringify(file)});`).join('\n');
    const { stderr, status } = spawnSync(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', code], {
      encoding: 'utf8',
    });
    expect(status, stderr).to.equal(0);
    return stderr.split('\n').filter((line) => line.includes('[MAMBA2_TFJS_TWICE]'));
  }

  for (const entry of ['index', 'layers', 'jit', 'training'])
    it(`is found by ${entry} where it was loaded before`, () => {
      const lines = warnings(copy, path.resolve(`src/${entry}.ts`));
      expect(lines).to.have.length(1);
      expect(lines[0]).to.match(/has loaded TensorFlow\.js twice/);
      expect(lines[0]).to.include(path.dirname(path.dirname(fs.realpathSync(copy))));
    });

  it('is found where a program imports it after this package, once', () => {
    const code = `import ${JSON.stringify(path.resolve('src/index.ts'))}; import ${JSON.stringify(copy)};`;
    const program = path.join(dir, 'program.mjs');
    fs.writeFileSync(program, code);
    const { stderr } = spawnSync(process.execPath, ['--import', 'tsx', program], { encoding: 'utf8' });
    expect(stderr.match(/MAMBA2_TFJS_TWICE/g), stderr).to.have.length(1);
  });

  it('is not seen where there is none, nor in TensorFlow itself', () => {
    expect(warnings('@tensorflow/tfjs', path.resolve('src/index.ts'), path.resolve('src/layers.ts'))).to.deep.equal([]);
  });
});
