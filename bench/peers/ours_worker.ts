/** Worker: decoding and prefill by one of our engines. Started by ours.ts; speaks JSON lines. */
import { GREEDY, type GenerationEngine } from '../../src/generation/engine.js';
import { Mamba2ForCausalLM } from '../../src/models/mamba2/causal_lm.js';
import { Int4WeightOnlyConfig } from '../../src/quant/index.js';
import { serve } from './serve.js';

/** Tokens that are read before decoding is timed. */
const CONTEXT = 16;

function prompt(length: number): Int32Array {
  return Int32Array.from({ length }, (_, i) => 1 + ((i * 37) % 5000));
}

async function decodeRound(engine: GenerationEngine, tokens: number, rows: number): Promise<() => Promise<number>> {
  const state = await engine.createState(rows);
  const all = <T>(make: () => T): T[] => Array.from({ length: rows }, make);
  await engine.prefill(
    state,
    all(() => prompt(CONTEXT)),
  );
  const run = async (count: number): Promise<void> => {
    if (engine.decode) {
      await engine.decode(
        state,
        count,
        GREEDY,
        all(() => new Int32Array(0)),
      );
      return;
    }
    for (let i = 0; i < count; i++) {
      const best = (await engine.logits(state)).map((logits) => {
        let top = 0;
        for (let id = 1; id < logits.length; id++) if (logits[id]! > logits[top]!) top = id;
        return top;
      });
      await engine.step(state, Int32Array.from(best));
    }
  };
  return async () => {
    await run(4); // warms up, as llama-bench does
    const began = performance.now();
    await run(tokens);
    return (1000 * rows * tokens) / (performance.now() - began);
  };
}

async function prefillRound(engine: GenerationEngine, tokens: number): Promise<() => Promise<number>> {
  const ids = prompt(tokens);
  const once = async (): Promise<number> => {
    const state = await engine.createState(1);
    const began = performance.now();
    await engine.prefill(state, [ids]);
    await engine.logits(state);
    const seconds = (performance.now() - began) / 1000;
    state.dispose();
    return tokens / seconds;
  };
  return async () => {
    await once(); // warms up, as llama-bench does
    return once();
  };
}

await serve(async ({ task, checkpoint, dtype, tokens, rows }, kind) => {
  const quantized =
    kind === 'int4' ? { quantization_config: new Int4WeightOnlyConfig({ include_input_output_embeddings: true }) } : {};
  const model = await Mamba2ForCausalLM.from_pretrained(checkpoint, {
    device: 'cpu',
    engine: kind === 'int4' ? 'compiled' : kind,
    dtype,
    batches: [rows],
    ...quantized,
  });
  const engine = await model.engine();
  return task === 'decode' ? decodeRound(engine, tokens, rows) : prefillRound(engine, tokens);
});
