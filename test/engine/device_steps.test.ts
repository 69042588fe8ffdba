/** One text and several decoded by the prepared steps of WebGPU, against the layers' own code: in Node.js by Dawn. */
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

  const writeAll = async (engine: EagerEngine, inputs: Partial<GenerateInputs>): Promise<number[][]> => {
    const all = { max_new_tokens: 12, eos_token_id: null, pad_token_id: 0, ...inputs };
    return (await generate(engine, new GenerationConfig({}), all as GenerateInputs)).new_tokens;
  };

  /** Prompts of several lengths. */
  const BATCH = [[0, 4, 2, 9], [3], [7, 1, 1, 5, 6, 2, 10], [8, 8], [1, 2, 3, 4, 5]];

  for (const [name, about] of Object.entries(STEP_CASES))
    it(`${name}: five rows of several lengths, ids, scores and states of the layers' code`, async () => {
      const prompts = BATCH.map((ids) => Int32Array.from(ids));
      await useBackend('cpu');
      const plain = engineOf(await modelOf(about));
      expect(plain.canSample(GREEDY, 5)).to.equal(false);
      const want = await plain.createState(5);
      cleanup.push(want);
      await plain.prefill(want, prompts);
      const ids: number[][] = BATCH.map(() => []);
      for (let i = 0; i < 20; i++) {
        const scores = await plain.logits(want);
        scores.forEach((row, b) => ids[b]!.push(row.indexOf(Math.max(...row))));
        await plain.step(
          want,
          Int32Array.from(ids, (row) => row.at(-1)!),
        );
      }
      const arrays = await want.toArrays();

      await useWebGpu();
      const engine = engineOf(await modelOf(about));
      expect(engine.canSample(GREEDY, 5)).to.equal(true);
      const states = [await engine.createState(5), await engine.createState(5)] as const;
      cleanup.push(...states);
      for (const state of states) await engine.prefill(state, prompts);
      const chosen = await engine.decode(states[0], 20, GREEDY, []);
      expect(chosen.map((row) => [...row])).to.deep.equal(ids);
      for (let i = 0; i < 20; i++)
        await engine.step(
          states[1],
          Int32Array.from(ids, (row) => row[i]!),
        );
      for (const each of states) {
        const got = await each.toArrays();
        expect(got.seen).to.deep.equal(arrays.seen);
        for (const [key, { data }] of Object.entries(arrays.tensors))
          expectClose(got.tensors[key]!.data, data, NEAR, key);
      }
    });

  it('several rows: the text of each alone, greedy, drawn and chosen on the host; ends, pads, beams and samples', async () => {
    const options: Partial<GenerateInputs>[] = [
      { input_ids: BATCH },
      { input_ids: BATCH, do_sample: true, seed: 5, temperature: 0.8, top_k: 0 },
      { input_ids: BATCH, do_sample: true, seed: 6, temperature: 1.3, top_k: 9 },
      { input_ids: BATCH, do_sample: true, seed: 7, top_p: 0.8 },
      { input_ids: BATCH, repetition_penalty: 1.3 },
      { input_ids: BATCH, eos_token_id: Array.from({ length: 60 }, (_, i) => 5 * i) },
      { input_ids: [BATCH[0]!], num_return_sequences: 3, do_sample: true, seed: 9, top_k: 0 },
      { input_ids: BATCH.slice(0, 2), num_beams: 3 },
    ];
    await useBackend('cpu');
    const shallow = { config: { ...LARGER, num_hidden_layers: 1 } };
    const plain = engineOf(await modelOf(shallow));
    const want = [];
    for (const each of options) want.push(await writeAll(plain, each));
    expect(new Set(want[5]!.map(({ length }) => length)).size, 'lengths').to.be.above(1);
    await useWebGpu();
    const engine = engineOf(await modelOf(shallow));
    for (const [i, each] of options.entries()) expect(await writeAll(engine, each), `${i}`).to.deep.equal(want[i]);
  });

  it('several rows: one that ended stays as it is, one that nothing can be chosen for is named, and others take turns', async () => {
    const engine = engineOf(await modelOf({ config: LARGER }));
    const prompts = BATCH.slice(0, 3).map((ids) => Int32Array.from(ids));
    const rows = async (): Promise<Awaited<ReturnType<EagerEngine['createState']>>> => {
      const state = await engine.createState(3);
      cleanup.push(state);
      await engine.prefill(state, prompts);
      return state;
    };
    const [whole, state] = [await rows(), await rows()];
    const want = await engine.decode(whole, 20, GREEDY, []);
    const first = await engine.decode(state, 7, GREEDY, []);
    const [before] = await engine.logits(state);
    const pad = { ...GREEDY, pad_token_id: 9 };
    const rest = await engine.decode(state, 13, pad, [], undefined, [true, false, false]);
    expect([...rest[0]!]).to.deep.equal(Array(13).fill(9));
    for (const row of [1, 2]) expect([...first[row]!, ...rest[row]!]).to.deep.equal([...want[row]!]);
    expect(state.seen).to.deep.equal([prompts[0]!.length + 7, prompts[1]!.length + 20, prompts[2]!.length + 20]);
    expectClose((await engine.logits(state))[0]!, before!, 0, 'scores of the row that ended');
    // between two of its blocks: one row, two rows, and a state of the same number
    const [third, single, pair] = [await rows(), await stateOf(engine), await whole.select([2, 0])];
    cleanup.push(pair);
    const [ids] = await engine.decode(third, 4, GREEDY, []);
    await engine.decode(single, 3, GREEDY, []);
    await engine.decode(pair, 3, GREEDY, []);
    await engine.decode(await rows(), 2, GREEDY, []);
    const more = await engine.decode(third, 16, GREEDY, []);
    expect([...ids!, ...more[0]!]).to.deep.equal([...want[0]!]);
    const arrays = await third.toArrays();
    const scores = arrays.tensors['logits']!.data;
    scores[engine.vocab_size + 4] = NaN;
    const broken = await engine.fromArrays(arrays);
    cleanup.push(broken);
    expect(await engine.decode(broken, 4, GREEDY, []).catch((error: Error) => error.message)).to.match(
      /^The scores of row 1 are NaN/,
    );
    const fresh = await engine.createState(3);
    cleanup.push(fresh);
    await engine.prefill(fresh, [prompts[0]!, new Int32Array(0), prompts[2]!]);
    expect(await engine.decode(fresh, 4, GREEDY, []).catch((error: Error) => error.message)).to.match(/row 1 has none/);
  });

  it('more rows than their states have places for go by the layers', async () => {
    const engine = engineOf(await modelOf({ config: { ...LARGER, state_size: 256, num_hidden_layers: 1 } }));
    // a state of 4·32·256 numbers is 128 KiB, and places are a GiB at most
    expect([2, 8193].map((rows) => engine.canSample(GREEDY, rows))).to.deep.equal([true, false]);
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

  it('batches of changing sizes leave no buffer and no tensor', async () => {
    const engine = engineOf(await modelOf({ config: { num_hidden_layers: 1 } }));
    const run = async (): Promise<void> => {
      for (const rows of [2, 3, 1, 2]) await writeAll(engine, { input_ids: BATCH.slice(0, rows), max_new_tokens: 5 });
    };
    for (let i = 0; i < 2; i++) await run();
    const [before, tensors] = [{ ...count }, tf.memory().numTensors];
    for (let i = 0; i < 5; i++) await run();
    expect([count, tf.memory().numTensors]).to.deep.equal([before, tensors]);
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
