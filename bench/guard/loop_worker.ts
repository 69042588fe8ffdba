/**
 * Worker: how long the event loop stands still while a model generates: the longest wait of a timer of 1 ms, in milliseconds. Started by
 * tasks.ts; speaks JSON lines.
 */
import { Mamba2ForCausalLM } from '../../src/models/mamba2/causal_lm.js';
import { serve } from '../peers/serve.js';

await serve(async ({ checkpoint, dtype, tokens }) => {
  const model = await Mamba2ForCausalLM.from_pretrained(checkpoint, { device: 'cpu', engine: 'compiled', dtype });
  const input_ids = [Array.from({ length: 16 }, (_, i) => 1 + ((i * 37) % 5000))];
  return async () => {
    let [longest, last] = [0, performance.now()];
    const timer = setInterval(() => {
      const now = performance.now();
      longest = Math.max(longest, now - last);
      last = now;
    }, 1);
    await model.generate({ input_ids, max_new_tokens: tokens, min_new_tokens: tokens, do_sample: false });
    longest = Math.max(longest, performance.now() - last);
    clearInterval(timer);
    return longest;
  };
});
