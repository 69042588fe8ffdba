/** Loads a model, reads a prompt and generates one token: `first_token.ts compiled DIR bfloat16 16` */
import { Mamba2ForCausalLM } from '../../src/models/mamba2/causal_lm.js';
import { configureRuntime, selectBackend } from '../../src/runtime/index.js';

const [engine, dir, dtype, tokens, ...xlaFlags] = process.argv.slice(2);
configureRuntime({ compileCache: true, xlaFlags });
await selectBackend('cpu');
const model = await Mamba2ForCausalLM.from_pretrained(dir!, {
  engine: engine as 'compiled' | 'eager',
  dtype: dtype as 'float32' | 'bfloat16',
});
const input_ids = [Array.from({ length: Number(tokens) }, (_, i) => 1 + ((i * 37) % 5000))];
await model.generate({ input_ids, max_new_tokens: 1, do_sample: false });
process.exit(0);
