/** A model of which several devices have a part of each layer: what it gives is what it gives on one. On logical devices of the processor. */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { CompiledEngine, type CompiledEngineOptions } from '../../../src/engine/compiled/compiled_engine.js';
import { EagerEngine } from '../../../src/engine/eager_engine.js';
import type { Spread } from '../../../src/engine/placement/spread.js';
import { Scheduler } from '../../../src/engine/scheduler/scheduler.js';
import { type EngineSampling, type GenerationEngine, GREEDY } from '../../../src/generation/engine.js';
import { Int4WeightOnlyConfig } from '../../../src/quant/index.js';
import type { Mamba2ConfigFields } from '../../../src/models/mamba2/config.js';
import { Mamba2ForCausalLM } from '../../../src/models/mamba2/index.js';
import { get_peft_model } from '../../../src/peft/index.js';
import { trainableOf } from '../../../src/training/index.js';
import { useBackend } from '../../support/backends.js';
import { disposedAfterEach } from '../../support/cleanup.js';
import { expectClose } from '../../support/compare.js';
import { DIVISIONS, LAYERS } from '../../support/divisions.js';
import { thrown } from '../../support/errors.js';
import { lcg } from '../../support/random.js';
import { eightGreedy, randomIds, tinyModel } from '../../support/tiny_model.js';

const SEGMENTS = { segments: [4, 8], batches: [1, 2] };
const prompts = randomIds(lcg(3), 2, 11, 11);
const rows = [prompts[0]!, prompts[1]!.slice(0, 5)].map((row) => Int32Array.from(row));
const BOOKS = 'models/tiny-books-mamba2';

describe('a model in parts on several devices', function () {
  this.timeout(600_000);
  before(() => useBackend('tensorflow'));
  const cleanup = disposedAfterEach();

  const made = (changes: Partial<Mamba2ConfigFields> = {}): ReturnType<typeof tinyModel> => {
    const tiny = tinyModel({ num_hidden_layers: LAYERS, ...changes });
    cleanup.push(tiny.model);
    return tiny;
  };
  const over = ({ model }: ReturnType<typeof tinyModel>, count: number): Spread => ({
    devices: Array.from({ length: count }, (_, k) => k),
    plan: model.network.tensorParallel(count),
  });
  const engineOf = (
    { model }: ReturnType<typeof tinyModel>,
    spread: Spread | null,
    options: CompiledEngineOptions = {},
  ): CompiledEngine => {
    const engine = new CompiledEngine(model.weights, { ...SEGMENTS, ...options }, spread);
    cleanup.push(engine);
    return engine;
  };

  for (const [count, changes] of [
    [2, {}],
    [4, { n_groups: 4, use_bias: false }],
    [2, { n_groups: 1 }],
    [3, { num_heads: 6, hidden_size: 9, n_groups: 1, use_bias: false }],
    [2, { norm_groups: 'full', use_conv_bias: false }],
  ] as [number, Partial<Mamba2ConfigFields>][])
    it(`reads rows of any length, steps and carries states as the oracle does: ${count} devices, ${JSON.stringify(changes)}`, async () => {
      const tiny = made(changes);
      // the oracle norms by groups
      if (changes.norm_groups === 'full') return fullNorm(tiny);
      const engine = engineOf(tiny, over(tiny, count));
      const state = await engine.createState(2);
      await engine.prefill(state, rows);
      const next = [7, 2];
      const read = rows.map((row) => [...row]);
      const check = async (): Promise<void> => {
        const logits = await engine.logits(state);
        read.forEach((ids, i) => {
          const { logits: want } = tiny.oracle(ids);
          expectClose(logits[i]!, Float32Array.from(want.data.slice(-11)), 1e-4, `row ${i} of ${ids.length}`);
        });
      };
      await check();
      await engine.step(state, Int32Array.from(next));
      read.forEach((row, i) => row.push(next[i]!));
      await check();
    });

  /** Against the engine on one device. */
  async function fullNorm(tiny: ReturnType<typeof tinyModel>): Promise<void> {
    const logits: Float32Array[][] = [];
    for (const spread of [null, over(tiny, 2)]) {
      const engine = engineOf(tiny, spread);
      const state = await engine.createState(2);
      await engine.prefill(state, rows);
      await engine.step(state, Int32Array.of(7, 2));
      logits.push(await engine.logits(state));
    }
    logits[0]!.forEach((row, i) => expectClose(logits[1]![i]!, row, 1e-4, `row ${i}`));
  }

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
      const drawn = sampling.do_sample ? uniforms : undefined;
      const out = await engine.decode(state, 9, sampling, rows, drawn, [false, false]);
      state.dispose();
      return out.map((row) => [...row]);
    };
    const kinds = [GREEDY, { ...GREEDY, eos: [3, 5] }, SAMPLED];
    const one = engineOf(tiny, null);
    const want = [];
    for (const sampling of kinds) want.push(await ids(one, sampling));
    for (const block of [1, 4]) {
      const engine = engineOf(tiny, over(tiny, 2), { block, batches: [2] });
      const got = [];
      for (const sampling of kinds) got.push(await ids(engine, sampling));
      expect(got, `blocks of ${block}`).to.deep.equal(want);
    }
  });

  it('hands states on between plans, maps, engines and files, and selects rows', async () => {
    const tiny = made({ tie_word_embeddings: true, n_groups: 1 });
    const spreads = [over(tiny, 2), null, over(tiny, 4), DIVISIONS['two devices']!];
    const eager = new EagerEngine(tiny.model.weights);
    const begun = await eager.createState(2);
    await eager.prefill(begun, rows);
    const want = await eager.logits(begun);
    let arrays = await begun.toArrays();
    begun.dispose();
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'parallel-'));
    try {
      for (const [i, spread] of spreads.entries()) {
        const engine = engineOf(tiny, spread, { state_dtype: 'float32' });
        const state = await engine.fromArrays(arrays);
        const swapped = await state.select([1, 0]);
        expectClose((await engine.logits(swapped))[0]!, want[1]!, 1e-4, `engine ${i}`);
        const back = await swapped.select([1, 0]);
        swapped.dispose();
        expectClose((await engine.logits(back))[0]!, want[0]!, 1e-4, `engine ${i}, rows back`);
        const file = path.join(dir, `${i}.safetensors`);
        await engine.state_files.write(file, { arrays: await back.toArrays(), ids: [[], []], extra: {} });
        const read = await engine.state_files.read(file);
        for (const name of ['layers.2.conv', 'layers.3.ssm']) expect(read.arrays.tensors[name]!.data, name).to.deep.equal(arrays.tensors[name]!.data); // prettier-ignore
        arrays = read.arrays;
        await engine.step(back, Int32Array.of(1, 2));
        const stepped = await engine.logits(back);
        const { logits } = tiny.oracle([...rows[0]!, 1]);
        expectClose(stepped[0]!, Float32Array.from(logits.data.slice(-11)), 1e-4, `engine ${i}, on from there`);
        for (const each of [state, back]) each.dispose();
      }
    } finally {
      fs.rmSync(dir, { recursive: true, force: true });
    }
  });

  it('runs the rows of a scheduler', async () => {
    const tiny = made();
    const requests = [{}, { do_sample: true, seed: 3, top_k: 4, repetition_penalty: 1.2 }, { eos_token_id: [2, 5] }];
    const run = async (engine: GenerationEngine, readers?: number): Promise<number[][]> => {
      const scheduler = new Scheduler(engine, { rows: 2, block: 2, ...(readers && { readers }) });
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
    const engine = engineOf(tiny, over(tiny, 2), { batches: [1], segments: [16], products: 'float32' });
    expect(await run(engine)).to.deep.equal(await run(new EagerEngine(tiny.model.weights)));
  });

  it('generates by its tp_plan from bfloat16, int4 and int8, beams too, and knows what one device alone can do', async () => {
    const ids = { input_ids: [[5, 6, 7, 99, 1000]], max_new_tokens: 10 };
    const options = [
      { dtype: 'float32' as const },
      { dtype: 'bfloat16' as const, products: 'float32' as const },
      // exact: rounded activations would be rounded by other groups
      { quantization_config: new Int4WeightOnlyConfig({ group_size: 64, activation_quantization: false }) },
    ];
    for (const one of options) {
      const texts = [];
      for (const tp of [{}, { tp_plan: 'auto', tp_size: 2 }] as const) {
        const model = await Mamba2ForCausalLM.from_pretrained(BOOKS, { device: 'cpu', ...one, ...tp });
        cleanup.push(model);
        expect(model.tp_size).to.equal('tp_size' in tp ? 2 : null);
        texts.push([
          await model.generate({ ...ids, do_sample: false }),
          await model.generate({ ...ids, do_sample: true, top_k: 20, seed: 4 }),
          await model.generate({ ...ids, num_beams: 2, do_sample: false }),
        ]);
      }
      expect(texts[1], Object.keys(one)[0]).to.deep.equal(texts[0]);
    }
  });

  it('is asked for by place(), with adapters, too', async () => {
    const tiny = made();
    const { model } = tiny;
    const ids = [3, 1, 4, 1, 5];
    const want = await eightGreedy(model, ids);
    model.place({ tp_plan: 'auto', tp_size: 2 });
    expect(model.hf_device_map).to.deep.equal({ '': 'cpu:0' });
    expect(model.divided).to.equal(true);
    expect(await eightGreedy(model, ids)).to.deep.equal(want);
    expect(thrown(() => trainableOf(model)).message).to.match(
      /tp_plan puts the model on several devices.*data_parallel/,
    );
    const targets = ['in_proj', 'out_proj', 'embeddings', 'lm_head'];
    const peft = get_peft_model(model, { r: 2, target_modules: targets }, { seed: 5 });
    for (const [i, v] of [...peft.trainable().values()].entries()) tf.tidy(() => v.assign(tf.randomNormal(v.shape, 0, 0.5, 'float32', i))); // prettier-ignore
    const adapted = await eightGreedy(peft, ids);
    expect(adapted).not.to.deep.equal(want);
    model.place({ tp_plan: 'auto' });
    expect(model.tp_size).to.equal(null);
    expect(await eightGreedy(peft, ids)).to.deep.equal(adapted);
  });
});
