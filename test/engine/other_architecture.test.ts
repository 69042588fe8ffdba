/** Another architecture than Mamba-2 runs by its RecurrentLM alone: engines, states, adapters and training know no model. */
import * as path from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { CausalLM } from '../../src/models/causal_lm.js';
import type { EngineKind, EngineOptions } from '../../src/models/engine_options.js';
import { RecurrentState } from '../../src/models/state.js';
import { get_peft_model } from '../../src/peft/index.js';
import { AutoTokenizer } from '../../src/models/auto/index.js';
import { SFTTrainer } from '../../src/training/index.js';
import { useBackend } from '../support/backends.js';
import { disposedAfterEach, folderForEach } from '../support/cleanup.js';
import { EPSILON, GatedConfig, GatedNetwork } from '../support/gated_recurrence.js';
import { lcg } from '../support/random.js';
import { expectClose } from '../support/compare.js';

type Model = CausalLM<GatedNetwork>;

describe('another architecture', () => {
  before(() => useBackend('tensorflow'));
  const made = disposedAfterEach();
  const folder = folderForEach('gated');

  /** A model whose weights are random in every entry, the same for each engine. */
  function gated(engine: EngineKind, change: Partial<GatedConfig> = {}, more: EngineOptions = {}): Model {
    const options = { engine, segments: [4], block: 3, batches: [1, 2], ...more };
    const model: Model = new CausalLM(new GatedNetwork(new GatedConfig({ ...change })), null, options);
    const random = lcg(3);
    for (const variable of Object.values(model.weights.all()) as tf.Variable[])
      tf.tidy(() =>
        variable.assign(
          tf.tensor(
            Array.from({ length: variable.size }, () => random() * 2 - 1),
            variable.shape,
          ),
        ),
      );
    made.push(model);
    return model;
  }

  /** The same in plain loops and float64: logits after each id. */
  function plainLogits(model: Model, ids: readonly number[]): number[][] {
    const w = Object.fromEntries(
      Object.entries(model.weights.all()).map(([name, v]) => [name, (v as tf.Tensor).arraySync() as number[][]]),
    );
    const { tie_word_embeddings: tied, num_hidden_layers: layers, hidden_size: d } = model.config;
    const times = (matrix: number[][], x: number[]): number[] =>
      matrix.map((row) => row.reduce((sum, m, i) => sum + m * x[i]!, 0));
    const normed = (x: number[], gamma: number[]): number[] => {
      const scale = Math.sqrt(x.reduce((sum, v) => sum + v * v, 0) / d + EPSILON);
      return x.map((v, i) => (v * gamma[i]!) / scale);
    };
    const vector = (name: string): number[] => w[name] as unknown as number[];
    const states = Array.from({ length: layers }, () => new Array<number>(d).fill(0));
    return ids.map((id) => {
      let h = [...w['tokens.weight']![id]!];
      states.forEach((s, layer) => {
        const of = (name: string): number[][] => w[`gated.${layer}.${name}`]!;
        const x = normed(h, vector(`gated.${layer}.norm.weight`));
        const bias = vector(`gated.${layer}.gate_proj.bias`);
        const gate = times(of('gate_proj.weight'), x).map((v, i) => 1 / (1 + Math.exp(-v - bias[i]!)));
        const value = times(of('value_proj.weight'), x);
        for (let i = 0; i < d; i++) s[i] = gate[i]! * s[i]! + (1 - gate[i]!) * value[i]!;
        h = times(of('out_proj.weight'), s).map((v, i) => v + h[i]!);
      });
      return times(w[tied ? 'tokens.weight' : 'scores.weight']!, normed(h, vector('norm.weight')));
    });
  }

  const greedy = { do_sample: false, max_new_tokens: 7 };
  const prompt = [3, 1, 4, 1, 5];

  /** The prompt and the likeliest ids after it, by the plain loops. */
  function plainText(model: Model): number[] {
    const ids = [...prompt];
    for (let i = 0; i < greedy.max_new_tokens; i++) {
      const scores = plainLogits(model, ids).at(-1)!;
      ids.push(scores.indexOf(Math.max(...scores)));
    }
    return ids;
  }

  for (const engine of ['eager', 'compiled'] as const) {
    for (const tie_word_embeddings of [true, false]) {
      it(`writes what plain loops write (${engine}, ${tie_word_embeddings ? 'tied' : 'untied'})`, async () => {
        const model = gated(engine, { tie_word_embeddings });
        const want = plainText(model);
        expect(await model.generate({ input_ids: [prompt], ...greedy })).to.deep.equal([want]);
        // padding changes nothing
        const padded = {
          input_ids: [
            [0, ...prompt],
            [...prompt, 7],
          ],
          attention_mask: [
            [0, 1, 1, 1, 1, 1],
            [1, 1, 1, 1, 1, 1],
          ],
        };
        const rows = await model.generate({ ...padded, ...greedy });
        expect(rows[0]!.slice(1)).to.deep.equal(want);
        const { logits } = model.forward({ input_ids: [prompt], use_cache: false });
        expectClose(logits, Float32Array.from(plainLogits(model, prompt).flat()), 1e-4);
        logits.dispose();
      });
    }
  }

  it('samples the same text with either engine', async () => {
    const options = {
      do_sample: true,
      top_k: 8,
      temperature: 1.3,
      seed: 11,
      max_new_tokens: 9,
      input_ids: [prompt, [2]],
    };
    expect(await gated('compiled').generate(options)).to.deep.equal(await gated('eager').generate(options));
  });

  it('has states that fork, are saved, and go on with either engine', async () => {
    const [eager, compiled] = [gated('eager'), gated('compiled')];
    const whole = await eager.generate({ input_ids: [prompt], ...greedy });
    const file = path.join(folder(), 'state.safetensors');
    const state = await compiled.prefill(prompt.slice(0, 3));
    const fork = await state.clone();
    await state.save(file);
    const loaded = await RecurrentState.load(eager, file);
    made.push(state, fork, loaded);
    for (const [model, own] of [
      [compiled, state],
      [compiled, fork],
      [eager, loaded],
    ] as const) {
      const rows = await model.generate({ input_ids: [prompt.slice(3)], state: own, ...greedy });
      expect(rows[0]).to.deep.equal(whole[0]!.slice(3));
      expect(own.ids).to.deep.equal([whole[0]]);
    }
  });

  it('has states in bfloat16 where that is asked for', async () => {
    const model = gated('compiled', {}, { state_dtype: 'bfloat16', batches: [1] });
    const state = await model.prefill(prompt);
    made.push(state);
    const { tensors } = await state.toArrays();
    const bits = new Uint32Array(tensors['layers.1.s']!.data.buffer.slice(0));
    expect(bits.every((word) => word << 16 === 0)).to.equal(true);
    expectClose(tensors['logits']!.data, Float32Array.from(plainLogits(model, prompt).at(-1)!), 0.05);
  });

  it('takes an adapter, which acts in both engines and merges', async () => {
    const config = { r: 2, target_modules: ['gate_proj', 'out_proj', 'tokens'], init_lora_weights: false } as const;
    for (const engine of ['eager', 'compiled'] as const) {
      const model = gated(engine, {}, { batches: [1] });
      const plain = plainText(model);
      const peft = get_peft_model(model, config, { seed: 5 });
      const merged = peft.merge_and_unload();
      made.push(merged);
      // an adapter of the embedding acts on its lookup: the head is stored apart
      expect(merged.config.tie_word_embeddings).to.equal(false);
      const [adapted] = await peft.generate({ input_ids: [prompt], ...greedy });
      expect(adapted).to.deep.equal(plainText(merged));
      expect(adapted).not.to.deep.equal(plain);
      peft.dispose();
      expect(plainText(model)).to.deep.equal(plain);
    }
  });

  for (const engine of ['eager', 'compiled'] as const) {
    for (const adapter of [false, true]) {
      it(`trains with SFTTrainer (${engine}, ${adapter ? 'an adapter' : 'all weights'})`, async () => {
        const processing_class = await AutoTokenizer.from_pretrained('models/tiny-books-mamba2');
        const model = gated('eager', { vocab_size: 4096 });
        const trainer = new SFTTrainer({
          model,
          processing_class,
          args: {
            output_dir: folder(),
            engine,
            ...{ max_length: 8, max_steps: 12, learning_rate: adapter ? 0.05 : 0.02, logging_steps: 1 },
            ...{ save_strategy: 'no', disable_tqdm: true, torch_compile: false, gradient_checkpointing: adapter },
          },
          train_dataset: [{ text: 'Brevity is the soul of wit.' }],
          ...(adapter && { peft_config: { r: 4, target_modules: 'all-linear' } }),
        });
        await trainer.train();
        const losses = trainer.state.log_history.flatMap(({ loss }) => (loss === undefined ? [] : [loss]));
        expect(losses).to.have.length(12);
        expect(losses.at(-1)).to.be.lessThan(0.8 * losses[0]!);
        trainer.dispose();
      });
    }
  }
});
