/** A scheduler over the eager engine: on any backend, one row after another. */
import { expect } from 'chai';
import { Scheduler } from '../../../src/engine/scheduler/scheduler.js';
import { EagerEngine } from '../../../src/engine/eager_engine.js';
import { generate } from '../../../src/generation/generate.js';
import { tensorCount, useBackend } from '../../support/backends.js';
import { tinyModel } from '../../support/tiny_model.js';

describe('a scheduler over the eager engine', function () {
  this.timeout(60_000);
  before(() => useBackend('cpu'));

  it('gives what generate() gives, from snapshots too, and leaves no tensor', async () => {
    const { model } = tinyModel();
    const engine = new EagerEngine(model.weights);
    const requests = [
      { input_ids: [5, 6, 7], max_new_tokens: 6 },
      { input_ids: [8, 3, 4, 4, 9, 5, 6, 7, 8, 3, 4, 5, 6, 9, 10, 7, 7], max_new_tokens: 5, do_sample: true, seed: 3 },
    ];
    const wanted = [];
    for (const { input_ids, ...rest } of requests)
      wanted.push(
        await generate(engine, model.generation_config, {
          ...rest,
          input_ids: [input_ids],
          attention_mask: [input_ids.map(() => 1)],
        }),
      );
    const before = tensorCount();
    const scheduler = new Scheduler(engine, { rows: 2, generation_config: model.generation_config });
    for (let turn = 0; turn < 2; turn++) {
      const got = await Promise.all(requests.map((request) => scheduler.submit(request).result));
      expect(got.map(({ choices }) => choices.map(({ ids }) => ids))).to.deep.equal(
        wanted.map(({ new_tokens }) => new_tokens),
      );
      expect(got.map(({ usage }) => usage.cached_tokens)).to.deep.equal([0, turn * 17]);
    }
    await scheduler.close();
    expect(tensorCount()).to.deep.equal(before);
    model.dispose();
  });
});
