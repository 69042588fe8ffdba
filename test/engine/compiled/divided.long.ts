/** A model on several devices: logical ones of the processor, which are devices to TensorFlow. What it gives is what it gives on one. */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { type EngineSampling, type GenerationEngine, GREEDY } from '../../../src/generation/engine.js';
import { CompiledEngine, type CompiledEngineOptions } from '../../../src/engine/compiled/compiled_engine.js';
import { EagerEngine } from '../../../src/engine/eager_engine.js';
import type { Division } from '../../../src/engine/placement/division.js';
import { Scheduler } from '../../../src/engine/scheduler/scheduler.js';
import { get_peft_model } from '../../../src/peft/index.js';
import { trainableOf } from '../../../src/training/index.js';
import { tensorCount, useBackend } from '../../support/backends.js';
import { disposedAfterEach } from '../../support/cleanup.js';
import { expectClose } from '../../support/compare.js';
import { thrown } from '../../support/errors.js';
import { lcg } from '../../support/random.js';
import { eightGreedy, randomIds, tinyModel } from '../../support/tiny_model.js';
import { DIVISIONS, LAYERS } from '../../support/divisions.js';

const SEGMENTS = { segments: [4, 8], batches: [1, 2] };
const prompts = randomIds(lcg(3), 2, 11, 11);
const rows = [prompts[0]!, prompts[1]!.slice(0, 5)].map((row) => Int32Array.from(row));

describe('a model on several devices', function () {
  this.timeout(240_000);
  before(() => useBackend('tensorflow'));
  const cleanup = disposedAfterEach();

  const made = (tied = false): ReturnType<typeof tinyModel> => {
    const tiny = tinyModel({ num_hidden_layers: LAYERS, tie_word_embeddings: tied });
    cleanup.push(tiny.model);
    return tiny;
  };
  const engineOf = (
    { model }: ReturnType<typeof tinyModel>,
    division: Division | null,
    options: CompiledEngineOptions = {},
  ): CompiledEngine => {
    const engine = new CompiledEngine(model.weights, { ...SEGMENTS, ...options }, division);
    cleanup.push(engine);
    return engine;
  };

  for (const [name, division] of Object.entries(DIVISIONS))
    it(`reads, steps and carries states as the oracle does (${name})`, async () => {
      const tiny = made();
      const engine = engineOf(tiny, division);
      const state = await engine.createState(2);
      await engine.prefill(state, rows);
      const next = [7, 2];
      const check = async (read: readonly number[][]): Promise<void> => {
        const logits = await engine.logits(state);
        read.forEach((ids, i) => {
          const { logits: want } = tiny.oracle(ids);
          expectClose(logits[i]!, Float32Array.from(want.data.slice(-11)), 1e-4, `row ${i} of ${ids.length}`);
        });
      };
      const read = rows.map((row) => [...row]);
      await check(read);
      await engine.step(state, Int32Array.from(next));
      read.forEach((row, i) => row.push(next[i]!));
      await check(read);
      const { states } = tiny.oracle(read[0]!);
      const arrays = await state.toArrays();
      states.forEach(({ ssm, conv }, layer) => {
        const { data } = arrays.tensors[`layers.${layer}.ssm`]!;
        expectClose(data.subarray(0, data.length / 2), Float32Array.from(ssm.data), 1e-4, `state of layer ${layer}`);
        expect(conv.data.length).to.be.above(0);
      });
    });

  const SAMPLED: EngineSampling = {
    ...GREEDY,
    do_sample: true,
    temperature: 0.8,
    top_k: 5,
    repetition_penalty: 1.3,
    eos: [3],
  };
  it('chooses the ids that one device chooses, greedily, by chance, in blocks, with rows that end', async () => {
    const tiny = made();
    const uniforms = [0, 1].map((i) => Float32Array.from({ length: 9 }, (_, k) => ((i * 7 + k * 5) % 17) / 17));
    const ids = async (engine: CompiledEngine, sampling: EngineSampling): Promise<number[][]> => {
      const state = await engine.createState(2);
      await engine.prefill(state, rows);
      const out = await engine.decode(state, 9, sampling, rows, sampling.do_sample ? uniforms : undefined, [
        false,
        false,
      ]);
      expect(await engine.logits(state)).to.have.length(2);
      state.dispose();
      return out.map((row) => [...row]);
    };
    const one = engineOf(tiny, null);
    const want = [];
    for (const sampling of [GREEDY, { ...GREEDY, eos: [3, 5] }, SAMPLED]) want.push(await ids(one, sampling));
    for (const block of [1, 4]) {
      const engine = engineOf(tiny, DIVISIONS['two devices']!, { block, batches: [2] });
      const got = [];
      for (const sampling of [GREEDY, { ...GREEDY, eos: [3, 5] }, SAMPLED]) got.push(await ids(engine, sampling));
      expect(got, `blocks of ${block}`).to.deep.equal(want);
    }
  });

  it('hands states on between maps, engines and files, and selects rows', async () => {
    const tiny = made(true);
    const engines = [engineOf(tiny, null), ...Object.values(DIVISIONS).slice(0, 2).map((division) => engineOf(tiny, division))]; // prettier-ignore
    const eager = new EagerEngine(tiny.model.weights);
    const begun = await eager.createState(2);
    await eager.prefill(begun, rows);
    const want = await eager.logits(begun);
    let arrays = await begun.toArrays();
    begun.dispose();
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'divided-'));
    try {
      for (const [i, engine] of engines.entries()) {
        const state = await engine.fromArrays(arrays);
        const swapped = await state.select([1, 0]);
        const logits = await engine.logits(swapped);
        expectClose(logits[0]!, want[1]!, 1e-4, `engine ${i}`);
        const back = await swapped.select([1, 0]);
        swapped.dispose();
        expectClose((await engine.logits(back))[0]!, want[0]!, 1e-4, `engine ${i}, rows back`);
        const file = path.join(dir, `${i}.safetensors`);
        await engine.state_files.write(file, { arrays: await back.toArrays(), ids: [[], []], extra: {} });
        const read = await engine.state_files.read(file);
        expect(read.arrays.tensors['layers.2.conv']!.data).to.deep.equal(arrays.tensors['layers.2.conv']!.data);
        arrays = read.arrays;
        for (const each of [state, back]) each.dispose();
      }
    } finally {
      fs.rmSync(dir, { recursive: true, force: true });
    }
  });

  it('leaves no tensor behind', async () => {
    const tiny = made();
    const engine = engineOf(tiny, DIVISIONS['two devices']!);
    const before = tensorCount();
    const state = await engine.createState(1);
    await engine.prefill(state, [rows[0]!]);
    await engine.decode(state, 2, GREEDY, [rows[0]!]);
    state.dispose();
    expect(tensorCount()).to.deep.equal(before);
  });

  it('generates by its device_map, with an adapter too, and knows what one device alone can do', async () => {
    const tiny = made();
    const { model } = tiny;
    const ids = [3, 1, 4, 1, 5];
    const want = await eightGreedy(model, ids);
    model.place({
      device_map: { '': 'cpu:0', 'backbone.layers': 'cpu:1', 'backbone.layers.2': 'cpu:2', lm_head: 'cpu:1' },
    });
    expect(model.hf_device_map).to.deep.equal({
      '': 'cpu:0',
      'backbone.layers': 'cpu:1',
      'backbone.layers.2': 'cpu:2',
      lm_head: 'cpu:1',
    });
    expect(await eightGreedy(model, ids)).to.deep.equal(want);
    expect(thrown(() => trainableOf(model)).message).to.match(
      /device_map puts the model on several devices.*data_parallel/,
    );
    const peft = get_peft_model(model, { r: 2, target_modules: ['in_proj', 'out_proj'] }, { seed: 5 });
    for (const [i, v] of [...peft.trainable().values()].entries()) tf.tidy(() => v.assign(tf.randomNormal(v.shape, 0, 0.5, 'float32', i))); // prettier-ignore
    const adapted = await eightGreedy(peft, ids);
    model.place({ device_map: 'cpu' });
    expect(model.hf_device_map).to.deep.equal({ '': 'cpu' });
    expect(await eightGreedy(peft, ids)).to.deep.equal(adapted);
    expect(adapted).not.to.deep.equal(want);
  });

  it('runs the rows of a scheduler', async () => {
    const tiny = made();
    const requests = [{}, { do_sample: true, seed: 3, top_k: 4, repetition_penalty: 1.2 }, { eos_token_id: [2, 5] }];
    const run = async (engine: GenerationEngine): Promise<number[][]> => {
      const scheduler = new Scheduler(engine, { rows: 2, block: 2 });
      try {
        const jobs = requests.map((one, i) =>
          scheduler.submit({ input_ids: prompts[i % 2]!, max_new_tokens: 6, eos_token_id: null, ...one }),
        );
        const results = await Promise.all(jobs.map(({ result }) => result));
        return results.flatMap(({ choices }) => choices.map(({ ids }) => ids));
      } finally {
        await scheduler.close();
      }
    };
    const divided = engineOf(tiny, DIVISIONS['two devices']!, { batches: [1], segments: [16], products: 'float32' });
    expect(await run(divided)).to.deep.equal(await run(new EagerEngine(tiny.model.weights)));
  });
});
