/** One text and several read and written by the prepared operations of WebAssembly, against the layers' own code on another backend. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import type { EagerEngine } from '../../src/engine/eager_engine.js';
import type { EagerState } from '../../src/engine/states/eager_state.js';
import { GREEDY } from '../../src/generation/engine.js';
import { quantize } from '../../src/models/quantize.js';
import { Int4WeightOnlyConfig } from '../../src/quant/index.js';
import { useBackend } from '../support/backends.js';
import { disposedAfterEach } from '../support/cleanup.js';
import { expectClose } from '../support/compare.js';
import { LARGER, STEP_CASES, stepMakers } from '../support/step_cases.js';
import { tinyModel } from '../support/tiny_model.js';

/** Of sums in float32 in another order, over some tokens. */
const NEAR = 1e-4;

/** More than are read together, with a rest. */
const PROMPT = Int32Array.from({ length: 150 }, (_, i) => (i * i + 3) % 11);

describe('steps that WebAssembly has prepared', function () {
  this.timeout(60_000);
  beforeEach(() => useBackend('wasm'));
  after(() => useBackend('cpu'));
  const cleanup = disposedAfterEach();

  const { modelOf, engineOf, stateOf } = stepMakers(cleanup, PROMPT);

  /** Feeds tokens one by one. */
  const step = async (engine: EagerEngine, state: EagerState, ids: Int32Array): Promise<void> => {
    for (const id of ids) await engine.step(state, Int32Array.of(id));
  };

  async function expectSame(got: EagerState, want: Awaited<ReturnType<EagerState['toArrays']>>): Promise<void> {
    const arrays = await got.toArrays();
    expect(arrays.seen).to.deep.equal(want.seen);
    for (const [key, { data }] of Object.entries(want.tensors)) expectClose(arrays.tensors[key]!.data, data, NEAR, key);
  }

  for (const [name, about] of Object.entries(STEP_CASES))
    it(`${name}: scores and states of the layers' code, of a prompt and of tokens after it`, async () => {
      await useBackend('cpu');
      const plain = engineOf(await modelOf(about));
      const want = await stateOf(plain);
      const read = await want.toArrays();
      await step(plain, want, PROMPT.subarray(0, 12));
      const stepped = await want.toArrays();
      await useBackend('wasm');
      const engine = engineOf(await modelOf(about));
      const state = await stateOf(engine);
      await expectSame(state, read);
      await step(engine, state, PROMPT.subarray(0, 12));
      await expectSame(state, stepped);
      // tokens are chosen on the host
      expect([engine.canSample(GREEDY, 1), engine.preferred_block]).to.deep.equal([false, 1]);
      // two and three at a time, after none and after some
      const pieces = await stateOf(engine, PROMPT.subarray(0, 2));
      for (let at = 2; at < PROMPT.length; at += 3) await engine.prefill(pieces, [PROMPT.subarray(at, at + 3)]);
      await step(engine, pieces, PROMPT.subarray(0, 12));
      await expectSame(pieces, stepped);
    });

  for (const [name, about] of Object.entries(STEP_CASES))
    it(`${name}: five rows of several lengths, scores and states of the layers' code`, async () => {
      const prompts = [PROMPT, PROMPT.subarray(3, 4), PROMPT.subarray(0, 70), PROMPT.subarray(9, 12), PROMPT.subarray(5, 69)]; // prettier-ignore
      const tokens = (i: number): Int32Array => Int32Array.from(prompts, (_, row) => (7 * i + row) % 11);
      const run = async (engine: EagerEngine): Promise<Awaited<ReturnType<EagerState['toArrays']>>[]> => {
        const state = await engine.createState(5);
        cleanup.push(state);
        // one row gets its first token with the second prompt
        await engine.prefill(state, prompts.map((ids, row) => (row === 1 ? ids.subarray(1) : ids))); // prettier-ignore
        const read = await state.toArrays();
        await engine.prefill(state, prompts.map((ids, row) => (row === 1 ? ids : ids.subarray(0, row)))); // prettier-ignore
        for (let i = 0; i < 12; i++) await engine.step(state, tokens(i));
        return [read, await state.toArrays()];
      };
      await useBackend('cpu');
      const want = await run(engineOf(await modelOf(about)));
      await useBackend('wasm');
      const got = await run(engineOf(await modelOf(about)));
      want.forEach(({ seen, fed, tensors }, i) => {
        expect([got[i]!.seen, got[i]!.fed]).to.deep.equal([seen, fed]);
        for (const [key, { data }] of Object.entries(tensors)) expectClose(got[i]!.tensors[key]!.data, data, NEAR, key);
      });
      expect(want[0]!.fed).to.deep.equal([true, false, true, true, true]);
    });

  it('states take turns: forks, a prompt read on, selections of several rows are as those of one row alone', async () => {
    const engine = engineOf(await modelOf({ config: LARGER }));
    const [first, other] = [await stateOf(engine), await stateOf(engine, Int32Array.of(7, 1))];
    await step(engine, first, Int32Array.of(4));
    const fork = await first.clone();
    cleanup.push(fork);
    await step(engine, other, Int32Array.of(4, 5));
    await Promise.all([step(engine, first, Int32Array.of(5, 6)), engine.prefill(fork, [Int32Array.of(5, 6)])]);
    const whole = await (await stateOf(engine, Int32Array.of(...PROMPT, 4, 5, 6))).toArrays();
    for (const state of [first, fork]) await expectSame(state, whole);
    const pair = await first.select([0, 0]);
    cleanup.push(pair);
    await engine.step(pair, Int32Array.of(1, 2));
    await step(engine, first, Int32Array.of(2));
    expectClose((await engine.logits(pair))[1]!, (await engine.logits(first))[0]!, NEAR, 'two rows');
  });

  it('a prompt that is ended by the disposal of its state is refused, and the next one is read', async () => {
    const engine = engineOf(await modelOf({ config: { ...LARGER, num_hidden_layers: 12 } }));
    const state = await engine.createState(1);
    const long = Int32Array.from({ length: 4000 }, (_, i) => i % 7);
    const running = engine.prefill(state, [long]).catch((error: Error) => error.message);
    await new Promise((resolve) => setTimeout(resolve, 5));
    state.dispose();
    expect(await running).to.match(/disposed/);
    const [scores] = await engine.logits(await stateOf(engine));
    expect(scores!.every(Number.isFinite)).to.equal(true);
  });

  it('weights that change are seen', async () => {
    const model = await modelOf({ config: LARGER });
    const engine = engineOf(model);
    const state = await stateOf(engine);
    const [before] = await engine.logits(state);
    const variable = model.weights.all()['lm_head.weight'] as tf.Variable;
    tf.tidy(() => variable.assign(tf.neg(variable)));
    const [after] = await engine.logits(await stateOf(engine));
    expectClose(after!, before!.map((value) => -value), NEAR, 'scores'); // prettier-ignore
  });

  it('models that write and are disposed of leave no tensor, and hundreds of tokens none and no memory', async () => {
    const heap = (): number => (tf.backend() as unknown as { wasm: { HEAPU8: Uint8Array } }).wasm.HEAPU8.byteLength;
    const run = async (): Promise<void> => {
      const { model } = tinyModel({ ...LARGER, num_hidden_layers: 1 });
      await quantize(model, new Int4WeightOnlyConfig({ group_size: 32 }));
      await model.generate({ input_ids: [[1, 2, 3]], max_new_tokens: 4, do_sample: false });
      model.dispose();
    };
    for (let i = 0; i < 3; i++) await run();
    const start = [tf.memory().numTensors, tf.memory().numBytes, heap()];
    for (let i = 0; i < 50; i++) await run();
    expect([tf.memory().numTensors, tf.memory().numBytes, heap()]).to.deep.equal(start);
    const engine = engineOf(await modelOf({ config: {} }));
    const state = await stateOf(engine);
    await step(engine, state, PROMPT);
    const [tensors, bytes] = [tf.memory().numTensors, heap()];
    for (let i = 0; i < 4; i++) await step(engine, state, PROMPT);
    expect([tf.memory().numTensors, heap()]).to.deep.equal([tensors, bytes]);
  });
});
