/** kill -9 of a worker at ten moments of a run: an error within 30 s that names it, and the run goes on each time with the losses of an unbroken one. */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { useBackend } from '../../support/backends.js';
import { killAndResume, type Moment } from '../../support/killed_workers.js';

/** While workers get the graph, and in, between and behind updates. Each is from where the one before was saved. */
const MOMENTS: readonly Moment[] = [
  { worker: 1, updates: 0, delay: 900 },
  { worker: 0, updates: 0, delay: 1300 },
  { worker: 1, updates: 0, delay: 2000 },
  { worker: 0, updates: 3, delay: 0 },
  { worker: 1, updates: 3, delay: 5 },
  { worker: 0, updates: 3, delay: 20 },
  { worker: 1, updates: 4, delay: 35 },
  { worker: 0, updates: 2, delay: 60 },
  { worker: 1, updates: 3, delay: 90 },
  { worker: 0, updates: 1, delay: 130 },
];

describe('workers that are killed', () => {
  before(() => useBackend('tensorflow'));

  it('end a run with their names at ten moments, and it goes on as if nothing had been', async function () {
    this.timeout(900_000);
    const root = fs.mkdtempSync(path.join(os.tmpdir(), 'killed-'));
    await killAndResume(root, MOMENTS);
    fs.rmSync(root, { recursive: true });
  });
});
