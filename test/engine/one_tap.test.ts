/** Models whose convolution has one tap, and so no context, on the compiled engine. */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { expect } from 'chai';
import { GREEDY } from '../../src/generation/engine.js';
import { CompiledEngine, type CompiledEngineOptions } from '../../src/engine/compiled/compiled_engine.js';
import { EagerEngine } from '../../src/engine/eager_engine.js';
import { Mamba2State } from '../../src/models/mamba2/index.js';
import { useBackend } from '../support/backends.js';
import { disposedAfterEach } from '../support/cleanup.js';
import { expectClose } from '../support/compare.js';
import { tinyModel } from '../support/tiny_model.js';

const TOLERANCE = 1e-4;

describe('a model with conv_kernel 1', function () {
  this.timeout(180_000);
  before(() => useBackend('tensorflow'));
  const cleanup = disposedAfterEach();

  for (const options of [
    {},
    { merge_step: true, fixed_blocks: true },
    { layered: true, products: 'float32', state_dtype: 'bfloat16' },
  ] as CompiledEngineOptions[]) {
    it(`runs as the eager engine does (${JSON.stringify(options)})`, async () => {
      const { model, oracle } = tinyModel({ conv_kernel: 1 });
      const engine = new CompiledEngine(model.weights, { segments: [4, 8], block: 4, batches: [1, 2], ...options });
      const eager = new EagerEngine(model.weights);
      cleanup.push(model, engine);
      const tolerance = options.state_dtype ? 0.03 : TOLERANCE;
      const texts = [
        [3, 1, 4, 1, 5, 9, 2, 6, 5],
        [10, 7, 0, 8],
      ];
      const [a, b] = [await engine.createState(2), await eager.createState(2)];
      const check = async (title: string): Promise<void> => {
        const want = await eager.logits(b);
        (await engine.logits(a)).forEach((row, i) => expectClose(row, want[i]!, tolerance, `${title}, row ${i}`));
      };
      for (const made of [engine, eager])
        await made.prefill(
          made === engine ? a : b,
          texts.map((text) => Int32Array.from(text)),
        );
      await check('prompt');
      const last = oracle(texts[0]!).logits.data;
      expectClose((await eager.logits(b))[0]!, Float32Array.from(last.slice(-11)), TOLERANCE, 'the eager engine');
      await engine.step(a, Int32Array.of(2, 3));
      await eager.step(b, Int32Array.of(2, 3));
      await check('step');
      // through the host, and to the other engine
      const arrays = await a.toArrays();
      expect(arrays.tensors['layers.0.conv']!.shape).to.deep.equal([2, 0, 28]);
      const swapped = await (await engine.fromArrays(arrays)).select([1, 0]);
      expectClose((await engine.logits(swapped))[1]!, (await eager.logits(b))[0]!, tolerance, 'parked');
      expectClose(
        (await eager.logits(await eager.fromArrays(arrays)))[1]!,
        (await eager.logits(b))[1]!,
        tolerance,
        'handed over',
      );
      await check('after another state');
      const chosen = await engine.decode(a, 6, GREEDY, []);
      for (let k = 0; k < 6; k++)
        await eager.step(
          b,
          Int32Array.from(chosen, (row) => row[k]!),
        );
      await check('decoded');
    });
  }

  it('has states that files hold', async () => {
    const { model, oracle } = tinyModel({ conv_kernel: 1 });
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'one-tap-'));
    cleanup.push({ dispose: () => fs.rmSync(folder, { recursive: true }) }, model);
    const engine = await model.engine();
    expect(engine.kind).to.equal('compiled');
    const state = await model.prefill([3, 1, 4, 1, 5]);
    const file = path.join(folder, 'state.safetensors');
    await state.save(file);
    const loaded = await Mamba2State.load(model, file);
    await model.prefill([9], { state: loaded });
    expectClose(
      (await engine.logits(loaded.engine_state))[0]!,
      Float32Array.from(oracle([3, 1, 4, 1, 5, 9]).logits.data.slice(-11)),
      TOLERANCE,
      'loaded',
    );
  });
});
