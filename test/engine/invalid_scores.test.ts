/** Weights that are NaN, and options that leave no id: the same error from every engine and on every way. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { GenerationError } from '../../src/base/errors.js';
import { CompiledEngine, type CompiledEngineOptions } from '../../src/engine/compiled/compiled_engine.js';
import { EagerEngine } from '../../src/engine/eager_engine.js';
import { generate, GenerationConfig, type GenerateInputs, type GenerationEngine } from '../../src/generation/index.js';
import type { Mamba2ForCausalLM } from '../../src/models/mamba2/causal_lm.js';
import { quantize } from '../../src/models/quantize.js';
import { Int4WeightOnlyConfig } from '../../src/quant/index.js';
import { tensorCount, useBackend } from '../support/backends.js';
import { disposedAfterEach } from '../support/cleanup.js';
import { tinyModel } from '../support/tiny_model.js';

const SIZES = {
  ...{ vocab_size: 64, hidden_size: 32, num_heads: 2, head_dim: 32, state_size: 16 },
  ...{ n_groups: 1, num_hidden_layers: 2, conv_kernel: 4, chunk_size: 4, tie_word_embeddings: false },
};

const INVALID = /^The scores of row \d are NaN after \d ids/;

const WAYS: Record<string, Partial<GenerateInputs>> = {
  greedy: {},
  'with a streamer': { streamer: { put: () => undefined, end: () => undefined } },
  'one token': { max_new_tokens: 1 },
  min_new_tokens: { min_new_tokens: 3, eos_token_id: 5 },
  penalty: { repetition_penalty: 1.2 },
  ...Object.fromEntries(
    Object.entries({
      plain: { top_k: 0 },
      temperature: { temperature: 0.7, top_k: 0 },
      top_k: { top_k: 7 },
      top_p: { top_p: 0.8, top_k: 0 },
      min_p: { min_p: 0.1, top_k: 0 },
      typical_p: { typical_p: 0.8, top_k: 0 },
      epsilon_cutoff: { epsilon_cutoff: 0.01, top_k: 0 },
      eta_cutoff: { eta_cutoff: 0.01, top_k: 0 },
      top_h: { top_h: 0.5, top_k: 0 },
      'penalty, sampled': { repetition_penalty: 1.2 },
    }).map(([name, o]) => [name, { do_sample: true, seed: 3, ...o }]),
  ),
};

describe('scores that nothing can be chosen by', function () {
  this.timeout(180_000);
  before(() => useBackend('tensorflow'));
  const cleanup = disposedAfterEach();

  const poisoned = (name: string, value: number, at = 3): Mamba2ForCausalLM => {
    const { model } = tinyModel(SIZES);
    cleanup.push(model);
    const variable = model.weights.all()[name] as tf.Variable;
    tf.tidy(() => {
      const values = variable.dataSync().slice();
      values[at % values.length] = value;
      variable.assign(tf.tensor(values, variable.shape));
    });
    return model;
  };
  const compiled = (model: Mamba2ForCausalLM, options: CompiledEngineOptions): CompiledEngine => {
    const engine = new CompiledEngine(model.weights, { segments: [8], block: 4, ...options });
    cleanup.push(engine);
    return engine;
  };
  /** The message of what is thrown, or what is written. */
  const outcome = async (engine: GenerationEngine, rows: number, way: Partial<GenerateInputs>): Promise<unknown> => {
    const input_ids = [
      [0, 4, 2],
      [1, 2],
      [0, 9],
    ].slice(-rows);
    const inputs = { max_new_tokens: 6, pad_token_id: 63, ...way, input_ids };
    try {
      return (await generate(engine, new GenerationConfig({}), inputs)).new_tokens;
    } catch (error) {
      expect(error).to.be.instanceOf(GenerationError);
      return (error as GenerationError).message;
    }
  };

  const cases: [title: string, weight: string, value: number, options: CompiledEngineOptions, rows: number][] = [
    ['NaN in D, one row', 'backbone.layers.0.mixer.D', NaN, {}, 1],
    ['NaN in D', 'backbone.layers.0.mixer.D', NaN, {}, 3],
    ['NaN in D, bfloat16', 'backbone.layers.0.mixer.D', NaN, { dtype: 'bfloat16' }, 1],
    ['NaN in D, fixed blocks', 'backbone.layers.0.mixer.D', NaN, { fixed_blocks: true }, 2],
    ['NaN in the embedding of an id of one row', 'backbone.embeddings.weight', NaN, {}, 3],
    ['NaN in a row of the head', 'lm_head.weight', NaN, {}, 2],
    ['Inf in A_log', 'backbone.layers.1.mixer.A_log', Infinity, {}, 2],
    ['Inf in a norm', 'backbone.norm_f.weight', Infinity, {}, 1],
  ];
  // each case with every way would take minutes: the first two have all, each of the others its share of them besides three
  const waysOf = (index: number): typeof WAYS => {
    const always = ['greedy', 'top_p', 'top_k'];
    const chosen = Object.entries(WAYS).filter(
      ([name], i) => index < 2 || always.includes(name) || i % 6 === index - 2,
    );
    return Object.fromEntries(chosen);
  };
  for (const [index, [title, weight, value, options, rows]] of cases.entries()) {
    it(`${title}: the compiled engine says what the eager one says`, async () => {
      // row 0 of the embedding is that of an id of the first and the last prompt
      const model = poisoned(weight, value);
      const eager = new EagerEngine(model.weights);
      const engine = compiled(model, options);
      for (const [name, way] of Object.entries(waysOf(index))) {
        const want = await outcome(eager, rows, way);
        if (Number.isNaN(value)) expect(want, name).to.match(INVALID);
        const got = await outcome(engine, rows, way);
        // where masked positions multiply infinity by 0, a program has NaN though one row alone has none; it says so
        if (typeof want !== 'string' && weight.endsWith('A_log')) expect(got, name).to.match(INVALID);
        else expect(got, name).to.deep.equal(want);
      }
    });
  }

  it('int4 by kernels of our own: NaN in D', async () => {
    const model = poisoned('backbone.layers.0.mixer.D', NaN);
    await quantize(model, new Int4WeightOnlyConfig({ group_size: 32 }));
    const engine = compiled(model, {});
    for (const rows of [1, 3])
      for (const name of ['greedy', 'top_p', 'top_k'])
        expect(await outcome(engine, rows, WAYS[name]!), name).to.match(INVALID);
  });

  it('all ids suppressed, at once or after a while: no id is made up, and nothing is left behind', async () => {
    const { model } = tinyModel(SIZES);
    cleanup.push(model);
    const eager = new EagerEngine(model.weights);
    const engine = compiled(model, {});
    const all = Array.from({ length: SIZES.vocab_size }, (_, i) => i);
    const some: Partial<GenerateInputs>[] = [
      { suppress_tokens: all },
      { suppress_tokens: all.slice(1), eos_token_id: 0, min_new_tokens: 2 },
      { begin_suppress_tokens: all },
    ];
    let start = null;
    for (const extra of some)
      for (const name of ['greedy', 'top_p', 'typical_p']) {
        const way = { ...WAYS[name], ...extra };
        const got = await outcome(engine, 2, way);
        expect(got, name).to.match(/^No token is left to choose in row 0 after \d ids/);
        expect(got, name).to.equal(await outcome(eager, 2, way));
        start ??= tensorCount();
      }
    expect(tensorCount()).to.deep.equal(start);
  });
});
