/** Thousands of tokens and many models by prepared steps, on WebAssembly and WebGPU: memory and buffers stay as they are. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { EagerEngine } from '../../src/engine/eager_engine.js';
import { quantize } from '../../src/models/quantize.js';
import { Int4WeightOnlyConfig } from '../../src/quant/index.js';
import { useBackend } from '../support/backends.js';
import { useWebGpu } from '../support/dawn.js';
import { LARGER } from '../support/step_cases.js';
import { tinyModel } from '../support/tiny_model.js';

/** What may not grow: tensors, their bytes, and the backend's own memory or buffers. */
type Held = () => unknown[];

const heap = (): number => (tf.backend() as unknown as { wasm: { HEAPU8: Uint8Array } }).wasm.HEAPU8.byteLength;

const BACKENDS: Record<string, () => Promise<Held | null>> = {
  wasm: async () => {
    await useBackend('wasm');
    return () => [tf.memory().numTensors, tf.memory().numBytes, heap()];
  },
  webgpu: async () => {
    const count = await useWebGpu();
    return count && (() => [tf.memory().numTensors, tf.memory().numBytes, { ...count }]);
  },
};

for (const [backend, use] of Object.entries(BACKENDS))
  describe(`a long run [${backend}]`, function () {
    this.timeout(1_800_000);
    let held: Held;
    before(async function () {
      const found = await use();
      if (!found) {
        process.stderr.write('a long run on WebGPU: skipped, since there is no WebGPU (Chromium brings SwiftShader)\n');
        return this.skip();
      }
      held = found;
    });
    after(() => useBackend('cpu'));

    for (const bits of [32, 4])
      it(`5,000 tokens of ${bits} bits, read anew now and then, hold nothing more`, async () => {
        const { model } = tinyModel(LARGER);
        if (bits === 4) await quantize(model, new Int4WeightOnlyConfig({ group_size: 32 }));
        const engine = new EagerEngine(model.weights);
        const write = async (tokens: number): Promise<void> => {
          const state = await engine.createState(1);
          await engine.prefill(state, [Int32Array.from({ length: 70 }, (_, i) => (i * 37) % 300)]);
          for (let i = 0; i < tokens; i++) {
            const [scores] = await engine.logits(state);
            await engine.step(state, Int32Array.of(scores!.indexOf(Math.max(...scores!))));
          }
          state.dispose();
        };
        // Twice: TensorFlow.js brings a weight to the device at its first use, in a buffer out of its pool. After the first text the pool lacks the
        // one that the last layer's D took, 16 bytes, which the scan's slices had left there; the second text makes up for it, and no later one.
        for (let i = 0; i < 2; i++) await write(100);
        const before = held();
        for (let i = 0; i < 10; i++) await write(500);
        expect(held()).to.deep.equal(before);
        engine.dispose();
        model.dispose();
      });

    it('a hundred models that write and are disposed of leave nothing', async () => {
      const run = async (): Promise<void> => {
        const { model } = tinyModel({ ...LARGER, num_hidden_layers: 1 });
        await model.generate({ input_ids: [[1, 2, 3]], max_new_tokens: 50, do_sample: false });
        model.dispose();
      };
      for (let i = 0; i < 3; i++) await run();
      const before = held();
      for (let i = 0; i < 100; i++) await run();
      expect(held()).to.deep.equal(before);
    });
  });
