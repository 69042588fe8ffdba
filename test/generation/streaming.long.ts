/** Ten thousand tokens of a stream hold memory constant: slow, so among the long tests. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect } from 'chai';
import { type GenerateOutput, type Streamer } from '../../src/generation/index.js';
import { CompiledEngine } from '../../src/engine/compiled/compiled_engine.js';
import { EagerEngine } from '../../src/engine/eager_engine.js';
import { generate } from '../../src/generation/generate.js';
import { tensorCount, useBackend } from '../support/backends.js';
import { tinyModel } from '../support/tiny_model.js';

const MB = 1e6;
const TOKENS = 10_000;
const WARM = 2_000;
setFlagsFromString('--expose-gc');
const gc = runInNewContext('gc') as () => void;

describe('a stream of 10,000 tokens', function () {
  this.timeout(900_000);
  before(() => useBackend('tensorflow'));

  for (const kind of ['eager', 'compiled'] as const) {
    it(`holds memory constant on the ${kind} engine`, async () => {
      const { model } = tinyModel();
      const engine =
        kind === 'eager' ? new EagerEngine(model.weights) : new CompiledEngine(model.weights, { segments: [4] });
      const counts: ReturnType<typeof tensorCount>[] = [];
      const memory: number[] = [];
      let written = 0;
      const streamer: Streamer = {
        put: async (rows) => {
          const before = written;
          written += rows[0]!.length;
          if (Math.floor(before / 500) === Math.floor(written / 500)) return;
          // what waits to be collected is not what is held
          gc();
          counts.push(tensorCount());
          memory.push(process.memoryUsage().rss);
        },
        end: async () => {},
      };
      const options = { input_ids: [[1, 2, 3]], do_sample: true, seed: 7, eos_token_id: null, max_new_tokens: TOKENS };
      const out: GenerateOutput = await generate(engine, model.generation_config, { ...options, streamer });
      expect(out.new_tokens[0]!.length).to.equal(TOKENS);
      expect(counts.length).to.be.at.least(TOKENS / 500 - 1);
      counts.forEach((count, i) => expect(count, `after ${(i + 1) * 500} tokens`).to.deep.equal(counts[0]));
      const growth = Math.max(...memory.slice(WARM / 500)) - memory[WARM / 500 - 1]!;
      expect(growth / MB, 'MB of growth after the first 2,000 tokens').to.be.below(8);
      if (engine instanceof CompiledEngine) engine.dispose();
      model.dispose();
    });
  }
});
