import { expect } from 'chai';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { installInto, packInto, runIn } from './support.js';

/** Downloads TensorFlow (261 MB), so not among the tests of every run. */
describe('set-up from nothing, in an empty project', () => {
  let folder: string;
  before(() => (folder = fs.mkdtempSync(path.join(os.tmpdir(), 'tfjs-mamba2-pack-'))));
  after(() => fs.rmSync(folder, { recursive: true, force: true }));

  it('two at once: one builds, the other waits and finds it done', async () => {
    const project = path.join(folder, 'project');
    installInto(project, packInto(folder).tarball);
    const env = { XDG_CACHE_HOME: path.join(folder, 'cache') };
    const both = runIn(project, 'sh', ['-c', 'npx mamba2 setup & npx mamba2 setup; wait'], env);
    expect(both.code, both.err).to.equal(0);
    expect(both.out)
      .to.match(/is set up in \d+ s/)
      .and.match(/is ready/);
    expect(both.err).to.match(/waiting for another set-up/);
    const report = runIn(project, 'npx', ['mamba2', 'env', '--json'], env);
    expect(JSON.parse(report.out)).to.include({ backend: 'tensorflow', tensorflow: '2.21.0' });
    expect(fs.readdirSync(path.join(folder, 'cache', 'tfjs-mamba2', 'runtime'))).to.have.length(1);
  });
});
