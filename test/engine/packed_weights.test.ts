/** Checkpoints in bfloat16 on WebAssembly and WebGPU: matrices stay packed, values are those of float32. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import type { EagerEngine } from '../../src/engine/eager_engine.js';
import { AutoModelForCausalLM } from '../../src/models/auto/index.js';
import type { Mamba2ForCausalLM } from '../../src/models/mamba2/causal_lm.js';
import { quantize } from '../../src/models/quantize.js';
import { Int8WeightOnlyConfig } from '../../src/quant/index.js';
import { useBackend } from '../support/backends.js';
import { expectClose } from '../support/compare.js';
import { useWebGpu } from '../support/dawn.js';
import { LARGER } from '../support/step_cases.js';
import { tinyModel } from '../support/tiny_model.js';

/** Of sums of some hundred float32 in another order. */
const NEAR = 2e-5;

const PROMPT = [[1, 2, 3, 250, 7]];

const BACKENDS = {
  wasm: async () => (await useBackend('wasm'), true),
  webgpu: async () => (await useWebGpu()) !== null,
};

for (const [backend, use] of Object.entries(BACKENDS))
  describe(`bfloat16 weights [${backend}]`, function () {
    this.timeout(120_000);
    let folder: string;
    before(async function () {
      folder = fs.mkdtempSync(path.join(os.tmpdir(), 'tfjs-mamba2-bf16-'));
      await useBackend('cpu');
      const { model } = tinyModel({ ...LARGER, tie_word_embeddings: true });
      await model.save_pretrained(folder, { dtype: 'bfloat16' });
      model.dispose();
      if (await use()) return;
      process.stderr.write(
        'bfloat16 weights on WebGPU: skipped, since there is no WebGPU (Chromium brings SwiftShader)\n',
      );
      this.skip();
    });
    beforeEach(() => use());
    after(async () => {
      fs.rmSync(folder, { recursive: true, force: true });
      await useBackend('cpu');
    });

    const load = (dtype: 'auto' | 'float32' = 'auto') => AutoModelForCausalLM.from_pretrained(folder, { dtype });

    /** Scores after a prompt, and after a step of one row and of two. */
    async function scores(model: Mamba2ForCausalLM): Promise<Float32Array[]> {
      const engine = (await model.engine()) as EagerEngine;
      const state = await engine.createState(1);
      await engine.prefill(
        state,
        PROMPT.map((ids) => Int32Array.from(ids)),
      );
      const all = await engine.logits(state);
      await engine.step(state, Int32Array.of(9));
      all.push(...(await engine.logits(state)));
      const pair = await state.select([0, 0]);
      await engine.step(pair, Int32Array.of(4, 299));
      all.push(...(await engine.logits(pair)));
      state.dispose();
      pair.dispose();
      return all;
    }

    const expectSame = (got: readonly Float32Array[], want: readonly Float32Array[]): void =>
      want.forEach((values, i) => expectClose(got[i]!, values, NEAR, `scores ${i}`));

    it('take half of the memory of float32, until something wants variables', async () => {
      const before = tf.memory();
      const [packed, wide] = [await load(), await load('float32')];
      const want = await scores(wide);
      ((await wide.engine()) as EagerEngine).dispose();
      const float32 = tf.memory().numBytes - before.numBytes;
      expectSame(await scores(packed), want);
      ((await packed.engine()) as EagerEngine).dispose();
      const matrices = packed.weights.network.weightSpecs().filter(({ role }) => role !== 'small');
      const saved = matrices.reduce((sum, { shape: [out, inner] }) => sum + 2 * out! * inner!, 0);
      expect(tf.memory().numBytes - before.numBytes).to.equal(2 * float32 - saved);
      const ids = await wide.generate({ input_ids: PROMPT, max_new_tokens: 12, do_sample: false });
      expect(await packed.generate({ input_ids: PROMPT, max_new_tokens: 12, do_sample: false })).to.deep.equal(ids);
      // a forward pass is of float32 variables, and then all is
      const [own, other] = [packed, wide].map((model) => model.forward({ input_ids: PROMPT, use_cache: false }).logits);
      expectClose(await own!.data<'float32'>(), await other!.data<'float32'>(), NEAR, 'forward');
      tf.dispose([own!, other!]);
      expectSame(await scores(packed), want);
      for (const model of [packed, wide]) ((await model.engine()) as EagerEngine).dispose();
      expect(tf.memory().numBytes - before.numBytes).to.equal(2 * float32);
      for (const model of [packed, wide]) model.dispose();
      expect(tf.memory().numTensors).to.equal(before.numTensors);
    });

    it('variables that are wanted in the middle of a prompt change nothing of it', async () => {
      const model = await load();
      const [want] = await scores(model);
      const engine = (await model.engine()) as EagerEngine;
      const state = await engine.createState(1);
      const running = engine.prefill(
        state,
        PROMPT.map((ids) => Int32Array.from(ids)),
      );
      await Promise.resolve();
      model.weights.all();
      await running;
      expectSame(await engine.logits(state), [want!]);
      state.dispose();
      model.dispose();
    });

    it('are quantised after they ran, saved as they are in the file, and adapted', async () => {
      const before = tf.memory().numTensors;
      const [model, other] = [await load(), await load()];
      await scores(model);
      await model.save_pretrained(path.join(folder, 'again'));
      const [file, again] = [folder, path.join(folder, 'again')].map((dir) => fs.readFileSync(path.join(dir, 'model.safetensors'))); // prettier-ignore
      expect(again!.equals(file!)).to.equal(true);
      await quantize(model, new Int8WeightOnlyConfig());
      await quantize(other, new Int8WeightOnlyConfig());
      expectSame(await scores(model), await scores(other));
      for (const each of [model, other]) each.dispose();
      expect(tf.memory().numTensors).to.equal(before);
    });
  });
