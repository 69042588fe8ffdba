/**
 * How far whole models are from float64, by what their steps are made of: kernels of our own (PTX on a GPU), XLA alone, op by op. The goldens'
 * models are too small for the kernels in PTX; these have random weights and dimensions that fit them. JSON lines.
 * `npx tsx bench/cuda/whole_model.ts --hidden 768,4096 --tokens 16` (NVIDIA_TF32_OVERRIDE=0 as for differences.ts)
 */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { parseArgs } from 'node:util';
import { GREEDY, type GenerationEngine } from '../../src/generation/engine.js';
import { CompiledEngine } from '../../src/engine/compiled/compiled_engine.js';
import { Mamba2Config } from '../../src/models/mamba2/config.js';
import { Mamba2ForCausalLM } from '../../src/models/mamba2/causal_lm.js';
import { EagerEngine } from '../../src/engine/eager_engine.js';
import { loadCheckpoint } from '../../src/models/mamba2/pretrained.js';
import { quantizationOf, quantizeWeights } from '../../src/engine/quantized_weights.js';
import { dequantizeRows, Int4WeightOnlyConfig } from '../../src/quant/index.js';
import { selectBackend } from '../../src/runtime/index.js';
import { largestDifference } from '../../test/support/compare.js';
import {
  arr,
  type Arr,
  type Arrs,
  model as float64Model,
  type MixerSizes,
  type RowState,
} from '../../test/support/oracle.js';
import { writeRandomCheckpoint } from '../random_checkpoint.js';

const { values: args } = parseArgs({
  options: {
    hidden: { type: 'string', default: '768,4096' },
    tokens: { type: 'string', default: '16' },
    /** Batches of rows that all read the same; with bfloat16 weights alone. */
    rows: { type: 'string', default: '1,8,64' },
    device: { type: 'string', default: 'auto' },
  },
});
const TOKENS = Number(args.tokens);
const PROMPT = Int32Array.of(17, 1234, 5, 800, 4000, 21, 9, 300);
/** Layers and groups: those of 130m (fewer layers), and of 7B. */
const SHAPES: Record<string, { layers: number; groups: number }> = {
  '64': { layers: 2, groups: 2 },
  '768': { layers: 4, groups: 1 },
  '2560': { layers: 2, groups: 1 },
  '4096': { layers: 1, groups: 8 },
};
const report = await selectBackend(args.device as 'auto');
const print = (record: Record<string, unknown>): void =>
  console.log(
    JSON.stringify({
      what: 'whole model',
      gpu: report.gpu.names[0] ?? null,
      tf32: process.env.NVIDIA_TF32_OVERRIDE !== '0',
      ...record,
    }),
  );

function argmax(values: ArrayLike<number>): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i;
  return best;
}

interface Reference {
  /** The prompt and what was chosen after it, greedily. */
  tokens: number[];
  /** After each token. */
  logits: Float64Array[];
}

/** The model in float64, with the weights as they are stored. */
function float64Reference(sizes: MixerSizes & { layers: number }, weights: Arrs): Reference {
  const tokens = [...PROMPT];
  const logits: Float64Array[] = [];
  let states: RowState[] | undefined;
  for (let t = 0; t < PROMPT.length + TOKENS; t++) {
    const out = float64Model(sizes, weights, [tokens[t]!], states);
    states = out.states;
    logits.push(out.logits.data);
    if (t >= PROMPT.length - 1 && tokens.length < PROMPT.length + TOKENS) tokens.push(argmax(out.logits.data));
  }
  return { tokens, logits };
}

/** One engine beside the reference: the same tokens one at a time, and what it writes by itself. */
async function compare(engine: GenerationEngine, want: Reference, rows = 1): Promise<Record<string, unknown>> {
  const state = await engine.createState(rows);
  let difference = 0;
  let squares = 0;
  let all = 0;
  let sameChoice = 0;
  for (const [t, token] of want.tokens.entries()) {
    await engine.step(state, new Int32Array(rows).fill(token));
    const expected = want.logits[t]!;
    for (const got of await engine.logits(state)) {
      difference = Math.max(difference, largestDifference(got, expected).difference);
      expected.forEach((v, i) => ((squares += (got[i]! - v) ** 2), (all += v * v)));
      sameChoice += Number(argmax(got) === argmax(expected));
    }
  }
  state.dispose();
  const result: Record<string, unknown> = {
    difference,
    relative: Math.sqrt(squares / all),
    same_choice: `${sameChoice}/${rows * want.tokens.length}`,
  };
  if (engine.decode) {
    const own = await engine.createState(rows);
    await engine.prefill(own, Array<Int32Array>(rows).fill(PROMPT));
    const written = await engine.decode(own, TOKENS, GREEDY, []);
    own.dispose();
    const agree = Array.from(written, (row) => {
      const parted = Array.from(row).findIndex((token, i) => token !== want.tokens[PROMPT.length + i]);
      return parted < 0 ? TOKENS : parted;
    });
    const same = Math.min(...agree);
    result.same_text = `${same}/${TOKENS}`;
    if (same < TOKENS) {
      // how far apart the two likeliest are in float64 where the text parts
      const [first, second] = [...want.logits[PROMPT.length - 1 + same]!].sort((a, b) => b - a);
      result.choices_apart = first! - second!;
    }
  }
  return result;
}

async function float64Weights(model: Mamba2ForCausalLM): Promise<Arrs> {
  const out: Record<string, Arr> = {};
  const packed = quantizationOf(model.weights)?.matrices;
  for (const { name, shape } of model.weights.network.weightSpecs()) {
    const matrix = packed?.get(name);
    out[name] = arr(
      shape,
      matrix ? dequantizeRows(matrix, 0, shape[0]!) : await model.weights.source!.readFloat32(name),
    );
  }
  return out;
}

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'whole-model-'));
try {
  for (const size of args.hidden.split(',')) {
    const hidden = Number(size);
    const { layers, groups } = SHAPES[size] ?? { layers: 2, groups: 1 };
    const config = new Mamba2Config({
      hidden_size: hidden,
      num_hidden_layers: layers,
      n_groups: groups,
      vocab_size: 4096,
      tie_word_embeddings: false,
      head_dim: 64,
      num_heads: (2 * hidden) / 64,
      state_size: 128,
      initializer_range: 0.02,
      bos_token_id: 0,
      eos_token_id: 0,
      pad_token_id: 0,
    });
    await writeRandomCheckpoint(dir, config, 'BF16');
    for (const int4 of [false, true]) {
      const loaded = await loadCheckpoint(dir);
      const model = new Mamba2ForCausalLM(loaded.config, loaded.source);
      if (int4) {
        const scheme = new Int4WeightOnlyConfig({ group_size: 128, include_input_output_embeddings: true });
        await quantizeWeights(model.weights, scheme);
      }
      const sizes = { ...(model.weights.network.blocks[0]!.spec as MixerSizes), layers };
      const want = float64Reference(sizes, await float64Weights(model));
      const largest = Math.max(...want.logits.map((row) => Math.max(...row.map(Math.abs))));
      const common = { hidden, layers, groups, weights: int4 ? 'int4' : 'bfloat16', largest_logit: largest };
      for (const kernels of ['own', 'XLA']) {
        for (const rows of int4 || kernels === 'XLA' ? [1] : args.rows.split(',').map(Number)) {
          process.env.TFJS_MAMBA2_TRITON = kernels === 'own' ? '1' : '0';
          const engine = new CompiledEngine(model.weights, {
            dtype: 'bfloat16',
            batches: [rows],
            segments: [16],
            block: TOKENS,
          });
          print({ ...common, kernels, rows, ...(await compare(engine, want, rows)) });
          engine.dispose();
        }
      }
      print({ ...common, kernels: 'op by op, float32', ...(await compare(new EagerEngine(model.weights), want)) });
      model.dispose();
    }
  }
} finally {
  fs.rmSync(dir, { recursive: true, force: true });
}
process.exit(0);
