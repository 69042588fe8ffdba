/** Hidden states out of prefill(): of both engines, against the oracle in float64. */
import { expect } from 'chai';
import { CompiledEngine, type CompiledEngineOptions } from '../../src/engine/compiled/compiled_engine.js';
import { EagerEngine } from '../../src/engine/eager_engine.js';
import type { GenerationEngine } from '../../src/generation/engine.js';
import { Mamba2ForCausalLM } from '../../src/models/mamba2/causal_lm.js';
import { loadCheckpoint } from '../../src/models/mamba2/pretrained.js';
import { tensorCount, useBackend } from '../support/backends.js';
import { disposedAfterEach } from '../support/cleanup.js';
import { bfloat16Bound, expectClose } from '../support/compare.js';
import { rejection } from '../support/errors.js';
import { lcg } from '../support/random.js';
import { randomIds, tinyModel, type TinyModel } from '../support/tiny_model.js';

/** Reads the rows and gives the hidden states of each, [tokens, d]. */
async function hiddenOf(engine: GenerationEngine, rows: readonly (readonly number[])[], d = 6): Promise<number[][]> {
  const state = await engine.createState(rows.length);
  const got: number[][] = rows.map(() => []);
  await engine.prefill(
    state,
    rows.map((row) => Int32Array.from(row)),
    {
      on_hidden: (row, hidden, at) => {
        expect(got[row]!.length).to.equal(at * d);
        got[row]!.push(...hidden);
      },
    },
  );
  state.dispose();
  return got;
}

describe('hidden states of prefill()', function () {
  this.timeout(120_000);
  before(() => useBackend('tensorflow'));
  const cleanup = disposedAfterEach();
  const random = lcg(5);
  // longer than the largest segment, shorter than the smallest, and one that ends with a segment
  const rows = [29, 3, 16].map((length) => randomIds(random, 1, length, 11)[0]!);

  const make = (): TinyModel => {
    const tiny = tinyModel();
    cleanup.push(tiny.model);
    return tiny;
  };
  const compiled = ({ model }: TinyModel, options: CompiledEngineOptions = {}): CompiledEngine => {
    const engine = new CompiledEngine(model.weights, { segments: [4, 8], ...options });
    cleanup.push(engine);
    return engine;
  };

  for (const kind of ['eager', 'compiled'] as const)
    it(`are those of the oracle, of rows of any length (${kind})`, async () => {
      const tiny = make();
      const engine = kind === 'eager' ? new EagerEngine(tiny.model.weights) : compiled(tiny);
      const got = await hiddenOf(engine, rows);
      rows.forEach((ids, i) => expectClose(got[i]!, tiny.oracle(ids).hidden.data, 1e-4, `row ${i}`));
      expectClose((await hiddenOf(engine, [rows[0]!]))[0]!, got[0]!, 1e-5, 'a row alone');
    });

  it('of a bfloat16 checkpoint stay within what rounding changes, and exact products change nothing', async () => {
    const { config, source } = await loadCheckpoint('models/tiny-books-mamba2');
    const model = new Mamba2ForCausalLM(config, source);
    cleanup.push(model);
    const text = [Array.from({ length: 30 }, (_, i) => (i * 71) % config.vocab_size)];
    const read = async (options: CompiledEngineOptions): Promise<number[]> => {
      const engine = new CompiledEngine(model.weights, { dtype: 'bfloat16', segments: [32], ...options });
      cleanup.push(engine);
      return (await hiddenOf(engine, text, config.hidden_size))[0]!;
    };
    const want = (await hiddenOf(new EagerEngine(model.weights), text, config.hidden_size))[0]!;
    const rms = Math.sqrt(want.reduce((sum, x) => sum + x * x, 0) / want.length);
    expectClose(await read({ products: 'float32' }), want, 1e-4 * rms, 'exact products');
    // what matrices multiply is rounded: twice a layer
    expectClose(await read({}), want, bfloat16Bound(2 * config.num_hidden_layers) * rms, 'rounded');
  });

  it('come with each segment, and not after an abort', async () => {
    const tiny = make();
    const engine = compiled(tiny);
    const state = await engine.createState(1);
    const stop = new AbortController();
    const seen: number[] = [];
    const reading = engine.prefill(state, [Int32Array.from(rows[0]!)], {
      signal: stop.signal,
      on_hidden: (_row, _hidden, at) => {
        seen.push(at);
        if (at > 0) stop.abort(new Error('enough'));
      },
    });
    expect((await rejection(reading)).message).to.equal('enough');
    expect(seen).to.deep.equal([0, 8]);
    state.dispose();
  });

  it('leave no tensor behind', async () => {
    const tiny = make();
    const engine = new EagerEngine(tiny.model.weights);
    await hiddenOf(engine, rows);
    const before = tensorCount();
    await hiddenOf(engine, rows);
    expect(tensorCount()).to.deep.equal(before);
  });
});
