/** Batch sizes of one engine: each compiled once, over the same weights, whatever others are used between. */
import { expect } from 'chai';
import { CompiledEngine, type CompiledEngineOptions } from '../../../src/engine/compiled/compiled_engine.js';
import { EagerEngine } from '../../../src/engine/eager_engine.js';
import { GREEDY } from '../../../src/generation/engine.js';
import { generate, GenerationConfig, type GenerationEngine } from '../../../src/generation/index.js';
import { Mamba2ForCausalLM } from '../../../src/models/mamba2/causal_lm.js';
import { loadCheckpoint } from '../../../src/models/mamba2/pretrained.js';
import { onGpu } from '../../../src/runtime/index.js';
import { tensorCount, useBackend } from '../../support/backends.js';
import { disposedAfterEach } from '../../support/cleanup.js';
import { loadGolden } from '../../support/goldens.js';

const PROMPTS = [[4, 30, 12, 7], [15, 3, 9], [8], [1, 2, 3, 4, 5]];
const MANY = Array.from({ length: 9 }, (_, i) => i + 1);

describe('batch sizes', function () {
  this.timeout(180_000);
  before(() => useBackend('tensorflow'));
  const cleanup = disposedAfterEach();

  /** An engine that notes which functions are compiled, and how often each weight is read from the file. */
  const load = async (
    options: CompiledEngineOptions = {},
  ): Promise<{ engine: CompiledEngine; eager: EagerEngine; compiled: string[]; read: Map<string, number> }> => {
    const { config, source } = await loadCheckpoint(loadGolden('g1-forward').dir);
    const read = new Map<string, number>();
    const counting = Object.create(source, {
      readBytes: {
        value: (name: string) => {
          read.set(name, (read.get(name) ?? 0) + 1);
          return source.readBytes(name);
        },
      },
    }) as typeof source;
    const model = new Mamba2ForCausalLM(config, counting);
    const other = new Mamba2ForCausalLM(config, source);
    const compiled: string[] = [];
    const engine = new CompiledEngine(model.weights, {
      segments: [8],
      on_compile: (name, phase, ms) => void (phase === 'compile' && ms !== null && compiled.push(name)),
      ...options,
    });
    cleanup.push(model, other, engine);
    return { engine, eager: new EagerEngine(other.weights), compiled, read };
  };

  const texts = async (engine: GenerationEngine, rows: number): Promise<number[][]> => {
    const input_ids = Array.from({ length: rows }, (_, i) => PROMPTS[i % PROMPTS.length]!);
    return (await generate(engine, new GenerationConfig({}), { input_ids, max_new_tokens: 6 })).new_tokens;
  };

  it('are compiled once each, in any order, and say what they would alone', async function () {
    if (onGpu()) this.skip(); // there all sizes are one program
    const { engine, eager, compiled, read } = await load();
    const want = await texts(eager, 4);
    for (const rows of [1, 4, 1, 4, 2, 1, 4]) expect(await texts(engine, rows)).to.deep.equal(want.slice(0, rows));
    expect(compiled).to.deep.equal([...new Set(compiled)]);
    expect(compiled.filter((name) => name.startsWith('prefill'))).to.deep.equal([
      'prefill1x8',
      'prefill4x8',
      'prefill2x8',
    ]);
    expect([...new Set(read.values())], 'weights are read once for all sizes').to.deep.equal([1]);
  });

  it('keep their states while others work, also those whose program had to go', async function () {
    if (onGpu()) this.skip();
    const { engine, eager, compiled } = await load();
    const want = await texts(eager, 9);
    const states = new Map<number, Awaited<ReturnType<CompiledEngine['createState']>>>();
    for (const rows of MANY) {
      const state = await engine.createState(rows);
      await engine.prefill(
        state,
        Array.from({ length: rows }, (_, i) => Int32Array.from(PROMPTS[i % PROMPTS.length]!)),
      );
      states.set(rows, state);
    }
    for (const [rows, state] of [...states].reverse()) {
      const ids = await engine.decode(state, 6, GREEDY, []);
      expect(ids.map((row) => [...row])).to.deep.equal(want.slice(0, rows));
      state.dispose();
    }
    const times = (rows: number): number => compiled.filter((name) => name === `greedy${rows}loop`).length;
    expect(await texts(engine, 1)).to.deep.equal(want.slice(0, 1));
    // one row was asked for and stays; of eight others seven are kept, so that two made way for nine, and nine for two
    expect(compiled.filter((name) => name === 'prefill1x8')).to.have.length(1);
    expect(MANY.map(times)).to.deep.equal(MANY.map(() => 1));
    await texts(engine, 9);
    expect(times(9), 'the longest unused went').to.equal(2);
  });

  it('leave nothing behind', async () => {
    const start = tensorCount();
    const { engine } = await load({ batches: [1, 2] });
    for (const rows of [1, 4, 1, 2]) await texts(engine, rows);
    engine.dispose();
    expect(tensorCount()).to.deep.equal(start);
    let name = '';
    await texts(engine, 1).catch((error: Error) => (name = error.name));
    expect(name).to.equal('DisposedError');
  });
});
