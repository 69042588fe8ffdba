/** A model of which several devices have a part of each layer, on logical devices of the processor; parallel.long.ts has more. */
import { expect } from 'chai';
import { CompiledEngine } from '../../../src/engine/compiled/compiled_engine.js';
import { stateLayout } from '../../../src/engine/compiled/divided_states.js';
import { parallelLayout } from '../../../src/engine/compiled/parallel_states.js';
import { GREEDY } from '../../../src/generation/engine.js';
import { Mamba2ForCausalLM } from '../../../src/models/mamba2/causal_lm.js';
import type { Mamba2ConfigFields } from '../../../src/models/mamba2/config.js';
import { loadCheckpoint } from '../../../src/models/mamba2/pretrained.js';
import { tensorCount, useBackend } from '../../support/backends.js';
import { expectClose } from '../../support/compare.js';
import { loadGolden, vectorOf } from '../../support/goldens.js';
import { tinyModel } from '../../support/tiny_model.js';

const SIZES: [Partial<Mamba2ConfigFields>, number][] = [
  [{}, 2], // biases; a group on each, and half of an odd vocabulary
  [{ n_groups: 1, tie_word_embeddings: true, use_bias: false }, 4], // one group, whose norm is over all
];

describe('a model in parts on several devices', function () {
  this.timeout(240_000);
  before(() => useBackend('tensorflow'));

  for (const [changes, count] of SIZES)
    it(`reads a prompt and tokens as the oracle does: ${count} devices, ${JSON.stringify(changes)}`, async () => {
      const { model, oracle } = tinyModel(changes);
      const devices = Array.from({ length: count }, (_, k) => k);
      const spread = { devices, plan: model.network.tensorParallel(count) };
      const engine = new CompiledEngine(model.weights, { segments: [4], products: 'float32', block: 2 }, spread);
      try {
        const before = tensorCount();
        const state = await engine.createState(1);
        const text = [3, 1, 4, 1, 5];
        await engine.prefill(state, [Int32Array.from(text)]);
        const check = async (): Promise<void> => {
          const want = Float32Array.from(oracle(text).logits.data.slice(-11));
          expectClose((await engine.logits(state))[0]!, want, 1e-4, `${text.length} ids`);
        };
        await check();
        // a block, and what is left
        const [chosen] = await engine.decode(state, 3, GREEDY, [Int32Array.from(text)]);
        for (const id of chosen!) {
          const last = oracle(text).logits.data.slice(-11);
          expect(id).to.equal(last.indexOf(Math.max(...last)));
          text.push(id);
        }
        await check();
        const arrays = await state.toArrays();
        oracle(text).states.forEach(({ ssm, conv }, layer) => {
          for (const [name, want] of [['ssm', ssm], ['conv', conv]] as const) expectClose(arrays.tensors[`layers.${layer}.${name}`]!.data, Float32Array.from(want.data), 1e-4, `${name} ${layer}`); // prettier-ignore
        });
        state.dispose();
        expect(tensorCount()).to.deep.equal(before);
      } finally {
        engine.dispose();
        model.dispose();
      }
    });

  // merged steps normalise in two parts where a layer has one group: a device's own factor must come before the sum over devices
  for (const merge_step of [false, true])
    it(`reads tokens of several rows as the golden does, each device with one group of its own (merge_step: ${merge_step})`, async () => {
      const golden = loadGolden('padding');
      const { config, source } = await loadCheckpoint(golden.dir);
      const model = new Mamba2ForCausalLM(config, source);
      const spread = { devices: [0, 1], plan: model.network.tensorParallel(2) };
      const engine = new CompiledEngine(model.weights, { segments: [8, 16], merge_step }, spread);
      try {
        const prompts = golden.inputs.prompts as number[][];
        const next = golden.inputs.next_tokens as number[][];
        const state = await engine.createState(prompts.length);
        await engine.prefill(
          state,
          prompts.map((p) => Int32Array.from(p)),
        );
        for (let k = 0; k < next[0]!.length; k++) {
          await engine.step(
            state,
            Int32Array.from(next, (r) => r[k]!),
          );
          const logits = await engine.logits(state);
          prompts.forEach((_, b) =>
            expectClose(logits[b]!, vectorOf(golden.tensor(`alone.${b}.steps.logits`), k), 1e-4, `row ${b}, step ${k}`),
          );
        }
      } finally {
        engine.dispose();
        model.dispose();
      }
    });

  it('has states that are parts of those of one device', () => {
    for (const [changes, count] of SIZES) {
      const { model } = tinyModel(changes);
      const { network } = model;
      const [whole, parts] = [
        stateLayout(network, 'float32', null),
        parallelLayout(network, 'float32', network.tensorParallel(count)),
      ];
      const sizeOf = (shape: readonly number[]): number => shape.reduce((a, n) => a * n, 1);
      const values = whole.variables(3).map(({ shape }, k) => Float32Array.from({ length: sizeOf(shape) }, (_, i) => k * 1000 + i)); // prettier-ignore
      const cut = parts.parts(values, 3);
      expect(cut.map(({ length }) => length)).to.deep.equal(parts.variables(3).map(({ shape }) => sizeOf(shape)));
      expect(parts.whole(cut, 3)).to.deep.equal(values);
      const names = parts.variables(3).map(({ name }) => name);
      expect(new Set(names).size).to.equal(names.length);
      expect(names.at(-1)).to.equal(`state3/logits:${count - 1}`);
      model.dispose();
    }
  });
});
