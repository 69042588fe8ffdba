/**
 * Loads a model with the built package, as a user's program does, reads a prompt and generates one token:
 * `node first_token.mjs compiled DIR bfloat16 16`
 */
import { configureRuntime, Mamba2ForCausalLM, selectBackend } from '../../dist/node/index.js';

const [engine, dir, dtype, tokens, ...xlaFlags] = process.argv.slice(2);
configureRuntime({ compileCache: true, xlaFlags });
await selectBackend('cpu');
const model = await Mamba2ForCausalLM.from_pretrained(dir, { engine, dtype });
const input_ids = [Array.from({ length: Number(tokens) }, (_, i) => 1 + ((i * 37) % 5000))];
await model.generate({ input_ids, max_new_tokens: 1, do_sample: false });
process.exit(0);
