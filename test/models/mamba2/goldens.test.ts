/** The model against values made independently (the goldens), on every backend. */
import * as tf from '@tensorflow/tfjs';
import { Mamba2ForCausalLM } from '../../../src/models/mamba2/causal_lm.js';
import { Mamba2Cache } from '../../../src/models/mamba2/cache.js';
import type { Mamba2ConfigFields } from '../../../src/models/mamba2/config.js';
import { loadCheckpoint } from '../../../src/models/mamba2/pretrained.js';
import { onBackends } from '../../support/backends.js';
import { convContext, expectClose, expectTensor } from '../../support/compare.js';
import { type Golden, loadGolden, vectorOf } from '../../support/goldens.js';

const TOLERANCE = 1e-4;

async function load(golden: Golden, overrides?: Partial<Mamba2ConfigFields>): Promise<Mamba2ForCausalLM> {
  const { config, source } = await loadCheckpoint(golden.dir, overrides);
  return new Mamba2ForCausalLM(config, source);
}

function expectStates(cache: Mamba2Cache, golden: Golden, prefix: string): void {
  cache.layers.forEach(({ conv, ssm }, i) => {
    expectTensor(conv, convContext(golden.tensor(`${prefix}conv_state.${i}`)), TOLERANCE, `${prefix}conv_state.${i}`);
    expectTensor(ssm, golden.tensor(`${prefix}ssm_state.${i}`), TOLERANCE, `${prefix}ssm_state.${i}`);
  });
}

function expectForward(model: Mamba2ForCausalLM, golden: Golden, prefix = ''): void {
  const input_ids = golden.inputs.input_ids as number[][];
  const out = model.forward({ input_ids, output_hidden_states: true });
  expectTensor(out.logits, golden.tensor(`${prefix}logits`), TOLERANCE, 'logits');
  const given = [...golden.expected.keys()].filter((name) => name.startsWith(`${prefix}hidden_states.`));
  if (given.length !== out.hidden_states!.length)
    throw new Error(`${out.hidden_states!.length} hidden states, expected ${given.length}`);
  out.hidden_states!.forEach((h, i) =>
    expectTensor(h, golden.tensor(`${prefix}hidden_states.${i}`), TOLERANCE, `hidden_states.${i}`),
  );
  expectStates(out.cache!, golden, prefix);
  out.cache!.dispose();
  tf.dispose([out.logits, ...out.hidden_states!]);
}

/** Positions from..to of logits [b, t, v], all rows. */
function positions(golden: Golden, name: string, from: number, to: number): number[] {
  const tensor = golden.tensor(name);
  const out: number[] = [];
  for (let row = 0; row < tensor.shape[0]!; row++)
    for (let t = from; t < to; t++) out.push(...vectorOf(tensor, row, t));
  return out;
}

onBackends(['tensorflow', 'wasm', 'cpu'], 'golden values', () => {
  let start: number;
  beforeEach(() => (start = tf.memory().numTensors));
  const models: Mamba2ForCausalLM[] = [];
  afterEach(() => {
    models.splice(0).forEach((model) => model.dispose());
    if (tf.memory().numTensors !== start) throw new Error(`${tf.memory().numTensors - start} tensors leaked`);
  });
  const model = async (golden: Golden, overrides?: Partial<Mamba2ConfigFields>): Promise<Mamba2ForCausalLM> => {
    const made = await load(golden, overrides);
    models.push(made);
    return made;
  };

  it('g1-forward: logits, hidden states and states', async () => {
    const golden = loadGolden('g1-forward');
    expectForward(await model(golden), golden);
  });

  it('g1-forward: states after short prefixes', async () => {
    const golden = loadGolden('g1-forward');
    const lm = await model(golden);
    const ids = golden.inputs.input_ids as number[][];
    for (const t of golden.inputs.prefix_lengths as number[]) {
      const out = lm.forward({ input_ids: ids.map((row) => row.slice(0, t)) });
      expectStates(out.cache!, golden, `prefix${t}.`);
      out.cache!.dispose();
      out.logits.dispose();
    }
  });

  it('g4-forward: gated norm per group', async () => {
    const golden = loadGolden('g4-forward');
    expectForward(await model(golden), golden, 'per_group.');
  });

  it('g4-forward: gated norm over all channels', async () => {
    const golden = loadGolden('g4-forward');
    expectForward(await model(golden, { norm_groups: 'full' }), golden, 'full.');
  });

  it('bias-and-limit: one pass and single steps', async () => {
    const golden = loadGolden('bias-and-limit');
    const lm = await model(golden);
    expectForward(lm, golden);
    const ids = golden.inputs.input_ids as number[][];
    const steps = golden.inputs.single_steps as number;
    const start = ids[0]!.length - steps;
    const cache = Mamba2Cache.zeros(lm.config, ids.length);
    lm.forward({ input_ids: ids.map((row) => row.slice(0, start)), cache }).logits.dispose();
    for (let k = 0; k < steps; k++) {
      const { logits } = lm.forward({ input_ids: ids.map((row) => [row[start + k]!]), cache });
      expectClose(logits, positions(golden, 'steps.logits', k, k + 1), TOLERANCE, `step ${k}`);
      logits.dispose();
    }
    cache.dispose();
  });

  it('cached-steps: prefill, several tokens, single tokens', async () => {
    const golden = loadGolden('cached-steps');
    const lm = await model(golden);
    const { input_ids: ids, ...parts } = golden.inputs as { input_ids: number[][] } & Record<string, number>;
    const whole = lm.forward({ input_ids: ids, use_cache: false }).logits;
    expectTensor(whole, golden.tensor('full.logits'), TOLERANCE, 'full.logits');
    const cache = Mamba2Cache.zeros(lm.config, ids.length);
    const v = lm.config.vocab_size;
    const feed = (from: number, to: number, name: string, offset: number): void => {
      const { logits } = lm.forward({ input_ids: ids.map((row) => row.slice(from, to)), cache });
      expectClose(logits, positions(golden, name, from - offset, to - offset), TOLERANCE, `${name} ${from}..${to}`);
      const same = tf.slice(whole, [0, from, 0], [ids.length, to - from, v]);
      expectClose(logits, same, 1e-5, `cached against whole, ${from}..${to}`);
      tf.dispose([logits, same]);
    };
    const prefill = parts['prefill']!;
    const chunk = prefill + parts['chunk']!;
    const end = chunk + parts['single_steps']!;
    feed(0, prefill, 'prefill.logits', 0);
    expectStates(cache, golden, 'after_prefill.');
    feed(prefill, chunk, 'chunk.logits', prefill);
    expectStates(cache, golden, 'after_chunk.');
    for (let k = chunk; k < end; k++) feed(k, k + 1, 'steps.logits', chunk);
    expectStates(cache, golden, 'end.');
    cache.dispose();
    whole.dispose();
  });

  for (const name of ['padding', 'padding-bias']) {
    for (const side of ['left', 'right', 'both'] as const) {
      it(`${name}: ${side} padding equals each prompt alone`, async () => {
        const golden = loadGolden(name);
        const lm = await model(golden);
        const { input_ids, attention_mask } = golden.inputs[side] as {
          input_ids: number[][];
          attention_mask: number[][];
        };
        const cache = Mamba2Cache.zeros(lm.config, input_ids.length);
        const { logits } = lm.forward({ input_ids, attention_mask, cache });
        const v = lm.config.vocab_size;
        const width = input_ids[0]!.length;
        const all = logits.dataSync();
        attention_mask.forEach((mask, row) => {
          const got = mask.flatMap((m, j) =>
            m ? [...all.slice((row * width + j) * v, (row * width + j + 1) * v)] : [],
          );
          expectClose(got, golden.tensor(`alone.${row}.logits`).data, TOLERANCE, `row ${row}`);
        });
        logits.dispose();
        expectRows(cache, golden, '');
        const next = golden.inputs.next_tokens as number[][];
        for (let k = 0; k < next[0]!.length; k++) {
          const step = lm.forward({ input_ids: next.map((row) => [row[k]!]), cache }).logits;
          const want = next.flatMap((_, row) => [...vectorOf(golden.tensor(`alone.${row}.steps.logits`), k)]);
          expectClose(step, want, TOLERANCE, `step ${k}`);
          step.dispose();
        }
        expectRows(cache, golden, 'end.');
        cache.dispose();
      });
    }
  }
});

function expectRows(cache: Mamba2Cache, golden: Golden, part: string): void {
  cache.layers.forEach(({ conv, ssm }, i) => {
    for (let row = 0; row < cache.batch; row++) {
      const name = `alone.${row}.${part}`;
      tf.tidy(() => {
        expectTensor(
          tf.squeeze(tf.slice(conv, [row, 0, 0], [1, -1, -1]), [0]),
          convContext(golden.tensor(`${name}conv_state.${i}`)),
          TOLERANCE,
          name,
        );
        expectTensor(
          tf.squeeze(tf.slice(ssm, [row, 0, 0, 0], [1, -1, -1, -1]), [0]),
          golden.tensor(`${name}ssm_state.${i}`),
          TOLERANCE,
          name,
        );
      });
    }
  });
}
