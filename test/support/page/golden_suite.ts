/** Golden values on a backend whose values have to be waited for (WebGPU): what test/models and test/generation ask of the others at once. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import type { EagerEngine } from '../../../src/engine/eager_engine.js';
import { AutoModelForCausalLM } from '../../../src/models/auto/index.js';
import { Mamba2Cache } from '../../../src/models/mamba2/cache.js';
import type { Mamba2ForCausalLM } from '../../../src/models/mamba2/index.js';
import type { PretrainedOptions } from '../../../src/models/mamba2/pretrained_options.js';
import { Int4WeightOnlyConfig } from '../../../src/quant/index.js';
import { convContext, expectClose } from '../compare.js';
import { type Golden, goldenDir, loadGolden, vectorOf } from '../goldens.js';
import { device, useBackend } from './backends.js';

const TOLERANCE = 1e-4;

const rowsOf = (golden: Golden): number[][] => golden.inputs['input_ids'] as number[][];

async function expectValues(
  got: tf.Tensor,
  want: ArrayLike<number>,
  what: string,
  tolerance = TOLERANCE,
): Promise<void> {
  expectClose(await got.data(), want, tolerance, what);
  got.dispose();
}

async function expectStates(cache: Mamba2Cache, golden: Golden, prefix: string): Promise<void> {
  for (const [i, { conv, ssm }] of cache.layers.entries()) {
    const context = convContext(golden.tensor(`${prefix}conv_state.${i}`)).data;
    expectClose(await conv.data(), context, TOLERANCE, `${prefix}conv_state.${i}`);
    expectClose(await ssm.data(), golden.tensor(`${prefix}ssm_state.${i}`).data, TOLERANCE, `${prefix}ssm_state.${i}`);
  }
}

describe(`golden values in a page [${device}]`, () => {
  let model: Mamba2ForCausalLM;
  let before = 0;
  const load = async (name: string, options: PretrainedOptions = {}): Promise<void> => {
    await useBackend();
    before = tf.memory().numTensors;
    model = await AutoModelForCausalLM.from_pretrained(name, options);
  };
  afterEach(() => {
    model.dispose();
    expect(tf.memory().numTensors, 'tensors left').to.equal(before);
  });

  for (const [name, prefix, options] of [
    ['g1-forward', '', {}],
    ['g4-forward', 'per_group.', {}],
    ['g4-forward', 'full.', { config: { norm_groups: 'full' } }],
  ] as const)
    it(`${name} ${prefix}`, async () => {
      const golden = loadGolden(name);
      await load(goldenDir(name), options);
      const out = model.forward({ input_ids: rowsOf(golden), output_hidden_states: true });
      await expectValues(out.logits, golden.tensor(`${prefix}logits`).data, 'logits');
      for (const [i, h] of out.hidden_states!.entries())
        await expectValues(h, golden.tensor(`${prefix}hidden_states.${i}`).data, `hidden_states.${i}`);
      await expectStates(out.cache!, golden, prefix);
      out.cache!.dispose();
    });

  it('cached-steps', async () => {
    const golden = loadGolden('cached-steps');
    await load(goldenDir('cached-steps'));
    const ids = rowsOf(golden);
    const { prefill, chunk, single_steps: steps } = golden.inputs as unknown as Record<string, number>;
    const cache = Mamba2Cache.zeros(model.config, ids.length);
    const feed = async (from: number, to: number, name: string, offset: number): Promise<void> => {
      const { logits } = model.forward({ input_ids: ids.map((row) => row.slice(from, to)), cache });
      const want = ids.flatMap((_, row) =>
        Array.from({ length: to - from }, (_, t) => [...vectorOf(golden.tensor(name), row, from - offset + t)]).flat(),
      );
      await expectValues(logits, want, `${name} ${from}..${to}`);
    };
    const end = prefill! + chunk!;
    await feed(0, prefill!, 'prefill.logits', 0);
    await expectStates(cache, golden, 'after_prefill.');
    await feed(prefill!, end, 'chunk.logits', prefill!);
    await expectStates(cache, golden, 'after_chunk.');
    for (let k = end; k < end + steps!; k++) await feed(k, k + 1, 'steps.logits', end);
    await expectStates(cache, golden, 'end.');
    cache.dispose();
  });

  for (const side of ['left', 'right', 'both'])
    it(`padding: ${side}`, async () => {
      const golden = loadGolden('padding');
      await load(goldenDir('padding'));
      const { input_ids, attention_mask } = golden.inputs[side] as Record<'input_ids' | 'attention_mask', number[][]>;
      const cache = Mamba2Cache.zeros(model.config, input_ids.length);
      const { logits } = model.forward({ input_ids, attention_mask, cache });
      const all = await logits.data<'float32'>();
      logits.dispose();
      const v = model.config.vocab_size;
      const width = input_ids[0]!.length;
      attention_mask.forEach((mask, row) => {
        const got = mask.flatMap((m, j) => (m ? [...all.slice((row * width + j) * v, (row * width + j + 1) * v)] : []));
        expectClose(got, golden.tensor(`alone.${row}.logits`).data, TOLERANCE, `row ${row}`);
      });
      cache.dispose();
    });

  it('generate-greedy', async () => {
    const golden = loadGolden('generate-greedy');
    await load(goldenDir('generate-greedy'));
    const runs = golden.json['runs'] as { name: string; kwargs: object; new_tokens: number[][] }[];
    const { kwargs, new_tokens } = runs.find(({ name }) => name === 'greedy')!;
    const input_ids = golden.inputs['prompts'] as number[][];
    const output = await model.generate({ input_ids, ...kwargs, return_dict_in_generate: true });
    expect(output.new_tokens).to.deep.equal(new_tokens);
  });

  it('int4', async () => {
    const golden = loadGolden('int4');
    const group_size = golden.inputs['group_size'] as number;
    await load(goldenDir('int4'), { quantization_config: new Int4WeightOnlyConfig({ group_size }) });
    const { logits } = model.forward({ input_ids: rowsOf(golden), use_cache: false });
    await expectValues(logits, golden.tensor('fp32.logits').data, 'logits');
  });

  it('books-model: the first tokens of each prompt', async () => {
    const golden = loadGolden('books-model');
    await load('models/tiny-books-mamba2');
    const [run] = golden.json['runs'] as { prompt_ids: number[]; new_tokens: number[] }[];
    const [ids] = await model.generate({ input_ids: [run!.prompt_ids], max_new_tokens: 6, do_sample: false });
    expect(ids!.slice(run!.prompt_ids.length)).to.deep.equal(run!.new_tokens.slice(0, 6));
    // an embedding, four kernels a layer, the head, and the choice
    const prepared = device === 'webgpu' ? 1 + 4 * model.config.num_hidden_layers + 2 : null;
    expect(((await model.engine()) as EagerEngine).dispatches).to.equal(prepared);
  });
});
