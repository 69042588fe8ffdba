/** kill -9 of a worker at two moments; kill_worker.long.ts has ten. */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { useBackend } from '../../support/backends.js';
import { killAndResume } from '../../support/killed_workers.js';

describe('workers that are killed', () => {
  before(() => useBackend('tensorflow'));

  it('end a run with their names, the first as the second, and it goes on as if nothing had been', async function () {
    this.timeout(300_000);
    const root = fs.mkdtempSync(path.join(os.tmpdir(), 'killed-'));
    await killAndResume(root, [
      { worker: 0, updates: 3, delay: 15 },
      { worker: 1, updates: 4, delay: 0 },
    ]);
    fs.rmSync(root, { recursive: true });
  });
});
