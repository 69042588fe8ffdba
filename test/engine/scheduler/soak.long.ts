/** 20,000 requests, a tenth of them aborted and a tenth malformed: no row is lost, no state is left, memory does not grow. */
import { expect } from 'chai';
import { Mamba2Error } from '../../../src/base/errors.js';
import { Scheduler } from '../../../src/engine/scheduler/scheduler.js';
import { lcg } from '../../support/random.js';
import { ToyEngine } from '../../support/toy_engine.js';

const V = 23;
const REQUESTS = 20_000;
const AT_ONCE = 40;

class Toy extends ToyEngine {
  memoryFor(rows: number): number {
    return 1000 * rows;
  }
}

describe('a scheduler, for long', function () {
  this.timeout(300_000);

  it('keeps nothing of 20,000 requests', async () => {
    const scores = (ids: readonly number[]): Float32Array => {
      const random = lcg(ids.length * 31 + (ids.at(-1) ?? 0));
      return Float32Array.from({ length: V }, random);
    };
    const engine = new Toy(V, scores);
    const scheduler = new Scheduler(engine, { rows: 8, queue: AT_ONCE, state_cache: { host_bytes: 50_000 } });
    const random = lcg(1);
    let malformed = 0;
    const one = async (): Promise<void> => {
      const left = random() < 0.1 ? new AbortController() : null;
      if (random() < 0.1) {
        malformed++;
        expect(() => scheduler.submit({ input_ids: [V] })).to.throw(Mamba2Error);
      }
      const scheduled = scheduler.submit({
        input_ids: Array.from({ length: 1 + Math.floor(40 * random()) }, () => 3 + Math.floor(20 * random())),
        max_new_tokens: 1 + Math.floor(10 * random()),
        eos_token_id: [2],
        priority: Math.floor(3 * random()),
        signal: left?.signal,
      });
      if (left) setImmediate(() => left.abort());
      await scheduled.result;
    };
    const heap: number[] = [];
    for (let k = 0; k < REQUESTS; k += AT_ONCE) {
      await Promise.all(Array.from({ length: AT_ONCE }, one));
      const { rows_running, running, waiting, cache } = scheduler.metrics();
      expect([rows_running, running, waiting]).to.deep.equal([0, 0, 0]);
      expect(engine.live).to.equal(cache.host.entries);
      if (k % 4000 === 0) {
        globalThis.gc?.();
        heap.push(process.memoryUsage().heapUsed);
      }
    }
    expect(malformed).to.be.greaterThan(REQUESTS / 20);
    if (globalThis.gc) expect(heap.at(-1)! - heap[1]!).to.be.lessThan(2 ** 21);
    await scheduler.close();
    expect(engine.live).to.equal(0);
  });
});
