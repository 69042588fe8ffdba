/** Rows of one text decoded by the prepared steps of WebGPU, against the layers' own code: in Node.js by Dawn. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import type { EagerEngine } from '../../src/engine/eager_engine.js';
import { generate, GenerationConfig, type GenerateInputs } from '../../src/generation/index.js';
import { GREEDY } from '../../src/generation/engine.js';
import { quantize } from '../../src/models/quantize.js';
import { Int4WeightOnlyConfig } from '../../src/quant/index.js';
import { useBackend } from '../support/backends.js';
import { disposedAfterEach } from '../support/cleanup.js';
import { expectClose } from '../support/compare.js';
import { type BufferCount, useWebGpu } from '../support/dawn.js';
import { LARGER, STEP_CASES, stepMakers } from '../support/step_cases.js';
import { tinyModel } from '../support/tiny_model.js';

/** Of sums in float32 in another order, over some tokens. */
const NEAR = 1e-4;

const PROMPT = Int32Array.of(0, 4, 2, 9);

describe('steps that WebGPU has prepared', function () {
  this.timeout(180_000);
  let count: BufferCount;
  before(async function () {
    const found = await useWebGpu();
    if (!found) {
      process.stderr.write('steps on WebGPU: skipped, since there is no WebGPU (Chromium brings SwiftShader)\n');
      return this.skip();
    }
    count = found;
  });
  beforeEach(() => useWebGpu());
  after(() => useBackend('cpu'));
  const cleanup = disposedAfterEach();

  const { modelOf, engineOf, stateOf } = stepMakers(cleanup, PROMPT);

  const write = async (engine: EagerEngine, inputs: Partial<GenerateInputs>): Promise<number[]> => {
    const all = { input_ids: [[...PROMPT]], max_new_tokens: 30, eos_token_id: null, ...inputs };
    return (await generate(engine, new GenerationConfig({}), all)).new_tokens[0]!;
  };

  for (const [name, about] of Object.entries(STEP_CASES))
    it(`${name}: ids, scores and states of the layers' code`, async () => {
      await useBackend('cpu');
      const plain = engineOf(await modelOf(about));
      expect(plain.canSample(GREEDY, 1)).to.equal(false);
      const want = await stateOf(plain);
      const ids: number[] = [];
      for (let i = 0; i < 20; i++) {
        const [scores] = await plain.logits(want);
        ids.push(scores!.indexOf(Math.max(...scores!)));
        await plain.step(want, Int32Array.of(ids.at(-1)!));
      }
      const arrays = await want.toArrays();

      await useWebGpu();
      const engine = engineOf(await modelOf(about));
      expect(engine.canSample(GREEDY, 1)).to.equal(true);
      expect(engine.canSample(GREEDY, 2)).to.equal(false);
      const [state, stepped] = [await stateOf(engine), await stateOf(engine)];
      const chosen = await engine.decode(state, 20, GREEDY, []);
      expect([...chosen[0]!]).to.deep.equal(ids);
      for (const id of ids) await engine.step(stepped, Int32Array.of(id));
      for (const each of [state, stepped]) {
        const got = await each.toArrays();
        expect(got.seen).to.deep.equal([24]);
        for (const [key, { data }] of Object.entries(arrays.tensors))
          expectClose(got.tensors[key]!.data, data, NEAR, key);
      }
    });

  it('states take turns: forks, a prompt read on, and selections are as those of one row alone', async () => {
    const engine = engineOf(await modelOf({ config: LARGER }));
    const alone = await stateOf(engine);
    const [want] = await engine.decode(alone, 12, GREEDY, []);
    const first = await stateOf(engine);
    await engine.decode(first, 5, GREEDY, []);
    const fork = await first.clone();
    cleanup.push(fork);
    const other = await stateOf(engine, Int32Array.of(7, 1));
    await engine.decode(other, 3, GREEDY, []);
    for (const state of [first, fork]) expect([...(await engine.decode(state, 7, GREEDY, []))[0]!]).to.deep.equal([...want!.subarray(5)]); // prettier-ignore
    // a prompt that goes on, after steps and by itself
    const whole = await stateOf(engine, Int32Array.of(...PROMPT, ...want!.subarray(0, 5), 3, 8));
    const read = await stateOf(engine);
    await engine.decode(read, 5, GREEDY, []);
    await engine.prefill(read, [Int32Array.of(3, 8)]);
    expectClose((await engine.logits(read))[0]!, (await engine.logits(whole))[0]!, NEAR, 'read on');
    const pair = await first.select([0, 0]);
    cleanup.push(pair);
    expectClose((await engine.logits(pair))[1]!, (await engine.logits(first))[0]!, 0, 'selected');
  });

  it('two texts at once do not mix', async () => {
    const engine = engineOf(await modelOf({ config: LARGER }));
    const prompts = [[1, 2], [3], [9, 9, 4]];
    const apart: number[][] = [];
    for (const ids of prompts) apart.push(await write(engine, { input_ids: [ids] }));
    expect(await Promise.all(prompts.map((ids) => write(engine, { input_ids: [ids] })))).to.deep.equal(apart);
  });

  it('sampling: the text of the host, whether tokens are chosen on the device or on the host', async () => {
    const options: Partial<GenerateInputs>[] = [
      { do_sample: true, seed: 5, temperature: 0.8, top_k: 0 },
      { do_sample: true, seed: 6, temperature: 1.3, top_k: 9 },
      { do_sample: true, seed: 7, top_p: 0.8 },
      { repetition_penalty: 1.3 },
      { do_sample: false, suppress_tokens: [1, 2, 3, 4, 5], min_new_tokens: 4, eos_token_id: [200, 7] },
    ];
    await useBackend('cpu');
    const plain = engineOf(await modelOf({ config: LARGER }));
    const want = [];
    for (const each of options) want.push(await write(plain, each));
    await useWebGpu();
    const engine = engineOf(await modelOf({ config: LARGER }));
    for (const [i, each] of options.entries()) expect(await write(engine, each)).to.deep.equal(want[i]);
  });

  it('a row ends within a block: it gives the pad, and its state is that after the end token', async () => {
    const engine = engineOf(await modelOf({ config: LARGER }));
    const [ids] = await engine.decode(await stateOf(engine), 6, GREEDY, []);
    const end = ids![3]!;
    const at = ids!.indexOf(end);
    const state = await stateOf(engine);
    const [ended] = await engine.decode(state, 6, { ...GREEDY, eos: [end], pad_token_id: 11 }, []);
    expect([...ended!]).to.deep.equal([...ids!.subarray(0, at + 1), ...Array<number>(5 - at).fill(11)]);
    expect(state.seen).to.deep.equal([PROMPT.length + at + 1]);
    const fed = await stateOf(engine);
    for (const id of ids!.subarray(0, at + 1)) await engine.step(fed, Int32Array.of(id));
    expectClose((await engine.logits(state))[0]!, (await engine.logits(fed))[0]!, 0, 'scores');
    expect([...(await engine.decode(state, 2, GREEDY, [], undefined, [true]))[0]!]).to.deep.equal([0, 0]);
  });

  it('weights that change are seen, and what cannot be chosen is an error', async () => {
    const model = await modelOf({ config: LARGER });
    const engine = engineOf(model);
    const state = await stateOf(engine);
    await engine.decode(state, 4, GREEDY, []);
    const variable = model.weights.all()['lm_head.weight'] as tf.Variable;
    tf.tidy(() => variable.assign(tf.neg(variable)));
    await engine.step(state, Int32Array.of(1));
    const other = await stateOf(engine, PROMPT);
    const [ids] = await engine.decode(other, 4, GREEDY, []);
    const again = await stateOf(engineOf(model));
    expect([...(await engine.decode(again, 4, GREEDY, []))[0]!]).to.deep.equal([...ids!]);
    tf.tidy(() => variable.assign(tf.fill(variable.shape, NaN)));
    await engine.step(other, Int32Array.of(1));
    const failed = await engine.decode(other, 4, GREEDY, []).catch((error: Error) => error.message);
    expect(failed).to.match(/^The scores of row 0 are NaN after \d+ ids/);
    const none = { ...GREEDY, suppress: Array.from({ length: 300 }, (_, id) => id) };
    expect(await engine.decode(state, 4, none, []).catch((error: Error) => error.message)).to.match(
      /^No token is left/,
    );
  });

  it('fifty models that write and are disposed of leave no buffer and no tensor', async () => {
    const run = async (): Promise<void> => {
      const { model } = tinyModel({ ...LARGER, num_hidden_layers: 1 });
      await quantize(model, new Int4WeightOnlyConfig({ group_size: 32 }));
      await model.generate({ input_ids: [[1, 2, 3]], max_new_tokens: 4, do_sample: false });
      model.dispose();
    };
    for (let i = 0; i < 3; i++) await run();
    const [before, tensors] = [{ ...count }, tf.memory().numTensors];
    for (let i = 0; i < 50; i++) await run();
    expect(count).to.deep.equal(before);
    expect(tf.memory().numTensors).to.equal(tensors);
  });

  it('hundreds of tokens leave no buffer', async () => {
    const engine = engineOf(await modelOf({ config: {} }));
    const state = await stateOf(engine);
    await engine.decode(state, 16, GREEDY, []);
    const [before, tensors] = [{ ...count }, tf.memory().numTensors];
    await engine.decode(state, 500, GREEDY, []);
    expect([count, tf.memory().numTensors]).to.deep.equal([before, tensors]);
  });
});
