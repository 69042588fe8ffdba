/** Worker: training steps by our compiled or eager engine. Started by ours.ts; speaks JSON lines. */
import { Mamba2ForCausalLM } from '../../src/models/mamba2/causal_lm.js';
import { prepareBatch } from '../../src/training/batch.js';
import { createStep } from '../../src/training/create_step.js';
import { trainableOf } from '../../src/training/trainable.js';
import type { Work } from './peer.js';
import { serve } from './serve.js';

/** One step is forward, gradients, clipping and AdamW with decay of what has two or more axes. */
async function stepRound({ checkpoint, tokens }: Work, engine: 'compiled' | 'eager'): Promise<() => Promise<number>> {
  const model = await Mamba2ForCausalLM.from_pretrained(checkpoint, { device: 'cpu', engine, dtype: 'float32' });
  const target = trainableOf(model);
  const row = Array.from({ length: tokens }, (_, i) => 1 + ((i * 37) % 5000));
  const batch = prepareBatch({ input_ids: [row], labels: [row] }, target.network.config.vocab_size);
  const step = createStep(target, { engine, weight_decay: 0.01, max_grad_norm: 1 });
  let count = 0;
  const once = async (): Promise<number> => {
    const began = performance.now();
    await step.step([batch], 1e-4, count++);
    return (1000 * tokens) / (performance.now() - began);
  };
  return async () => {
    await once(); // warms up
    return once();
  };
}

await serve((work, kind) => {
  if (kind === 'int4') throw new Error('quantised weights are not trained');
  return stepRound(work, kind);
});
