import { expect } from 'chai';
import { ArgumentError, GenerationError } from '../../src/base/errors.js';
import { generate, GenerationConfig } from '../../src/generation/index.js';
import type { GenerateInputs, GenerateOutput } from '../../src/generation/index.js';
import { rejection } from '../support/errors.js';
import { lcg } from '../support/random.js';
import { hashedLogits, ToyEngine } from '../support/toy_engine.js';

const V = 23;
const logitsOf = hashedLogits(V);
const config = new GenerationConfig();
const prompts = [[3, 4, 5], [7], [9, 2, 2, 6, 1]];

/** Greedy decoding written out: no state, no batch. */
function greedy(ids: readonly number[], count: number, eos = -1): number[] {
  const all = [...ids];
  for (let k = 0; k < count && (k === 0 || all.at(-1)! !== eos); k++) {
    const logits = logitsOf(all);
    all.push(logits.indexOf(Math.max(...logits)));
  }
  return all.slice(ids.length);
}

const engines: [string, () => ToyEngine][] = [
  ['choosing here', () => new ToyEngine(V, logitsOf)],
  ...[1, 3, 8].map((block): [string, () => ToyEngine] => [
    `engine blocks of ${block}`,
    () => new ToyEngine(V, logitsOf, { block }),
  ]),
];

for (const [name, make] of engines) {
  describe(`generate (${name})`, () => {
    let engine: ToyEngine;
    const run = (inputs: GenerateInputs): Promise<GenerateOutput> => generate(engine, config, inputs);
    beforeEach(() => {
      engine = make();
    });
    afterEach(() => {
      expect(engine.live, 'states that were left').to.equal(0);
    });

    it('takes the best token each time, for prompts of different lengths together', async () => {
      const { new_tokens, sequences, finish_reasons } = await run({ input_ids: prompts, max_new_tokens: 11 });
      expect(new_tokens).to.deep.equal(prompts.map((p) => greedy(p, 11)));
      expect(sequences).to.deep.equal(prompts.map((p, i) => [...p, ...new_tokens[i]!]));
      expect(finish_reasons).to.deep.equal(['length', 'length', 'length']);
    });

    it('gives padded rows what each prompt gets alone, on either side', async () => {
      const pad = (left: boolean): { input_ids: number[][]; attention_mask: number[][] } => {
        const fill = (row: number[], value: number): number[] => {
          const pads = new Array<number>(6 - row.length).fill(value);
          return left ? [...pads, ...row] : [...row, ...pads];
        };
        return {
          input_ids: prompts.map((p) => fill(p, 1)),
          attention_mask: prompts.map((p) =>
            fill(
              p.map(() => 1),
              0,
            ),
          ),
        };
      };
      for (const left of [true, false]) {
        const batch = pad(left);
        const { new_tokens, sequences } = await run({ ...batch, max_new_tokens: 7 });
        expect(new_tokens).to.deep.equal(prompts.map((p) => greedy(p, 7)));
        expect(sequences).to.deep.equal(batch.input_ids.map((row, i) => [...row, ...new_tokens[i]!]));
      }
    });

    it('ends rows at the end token and fills them with the pad token', async () => {
      const eos = greedy(prompts[0]!, 12)[4]!;
      const want = prompts.map((p) => greedy(p, 12, eos));
      const longest = Math.max(...want.map((w) => w.length));
      const output = await run({ input_ids: prompts, max_new_tokens: 12, eos_token_id: [eos], pad_token_id: 0 });
      expect(output.new_tokens).to.deep.equal(want);
      output.sequences.forEach((row, i) => {
        const fill = new Array<number>(longest - want[i]!.length).fill(0);
        expect(row).to.deep.equal([...prompts[i]!, ...want[i]!, ...fill]);
        expect(output.finish_reasons[i]).to.equal(want[i]![want[i]!.length - 1] === eos ? 'eos' : 'length');
      });
    });

    it('counts max_length with the prompt, row by row, and 20 new tokens by default', async () => {
      const { new_tokens } = await run({ input_ids: prompts, max_length: 9 });
      expect(new_tokens).to.deep.equal(prompts.map((p) => greedy(p, 9 - p.length)));
      const byDefault = await run({ input_ids: [prompts[0]!] });
      expect(byDefault.new_tokens[0]).to.deep.equal(greedy(prompts[0]!, 20));
    });

    it('writes at least min_new_tokens, and not what is suppressed', async () => {
      const eos = greedy(prompts[0]!, 1)[0]!;
      const { new_tokens } = await run({ input_ids: prompts, eos_token_id: eos, min_new_tokens: 5, max_new_tokens: 9 });
      for (const row of new_tokens) expect(row.slice(0, 5)).to.not.include(eos);
      const begin = await run({ input_ids: [prompts[0]!], begin_suppress_tokens: [eos], max_new_tokens: 30 });
      expect(begin.new_tokens[0]![0]).to.not.equal(eos);
      const never = await run({ input_ids: prompts, suppress_tokens: [eos, 4], max_new_tokens: 30, vocab_limit: 20 });
      for (const row of never.new_tokens) {
        for (const id of row) expect(id).to.satisfy((i: number) => i < 20 && i !== 4 && i !== eos);
      }
    });

    it('draws the same with the same seed, whatever the batch, and other things with another', async () => {
      const options = { do_sample: true, temperature: 1.3, top_k: 15, top_p: 0.95, max_new_tokens: 25 };
      const first = await run({ input_ids: prompts, ...options, seed: 1 });
      const second = await run({ input_ids: prompts, ...options, seed: 1 });
      expect(second.new_tokens).to.deep.equal(first.new_tokens);
      for (const [i, prompt] of prompts.entries()) {
        const alone = await run({ input_ids: [prompt], ...options, seed: 1, first_stream: i });
        expect(alone.new_tokens[0]).to.deep.equal(first.new_tokens[i]);
      }
      const other = await run({ input_ids: prompts, ...options, seed: 2 });
      expect(other.new_tokens).to.not.deep.equal(first.new_tokens);
      const unseeded = await Promise.all([0, 1].map(() => run({ input_ids: [prompts[0]!], ...options })));
      expect(unseeded[0]!.new_tokens).to.not.deep.equal(unseeded[1]!.new_tokens);
    });

    it('draws num_return_sequences different rows of each prompt', async () => {
      const options = { do_sample: true, max_new_tokens: 12, seed: 5, num_return_sequences: 3 };
      const { sequences } = await run({ input_ids: prompts, ...options });
      expect(sequences.length).to.equal(9);
      sequences.forEach((row, i) => {
        const prompt = prompts[Math.floor(i / 3)]!;
        expect(row.slice(0, prompt.length)).to.deep.equal(prompt);
      });
      expect(new Set(sequences.map((r) => r.slice(-12).join())).size).to.equal(9);
    });

    it('goes on from a state as if it had never stopped', async () => {
      for (const options of [{}, { do_sample: true, seed: 4 }]) {
        const whole = await run({ input_ids: prompts, max_new_tokens: 14, ...options });
        const state = await engine.createState(3);
        const first = await run({ input_ids: prompts, max_new_tokens: 14, ...options, state });
        expect(first.new_tokens).to.deep.equal(whole.new_tokens);
        expect(state.rows).to.deep.equal(whole.sequences);
        state.dispose();
      }
      const whole = await run({ input_ids: prompts, max_new_tokens: 14 });
      const { state } = await run({ input_ids: prompts, max_new_tokens: 5, return_state: true });
      const rest = await run({ input_ids: [[], [], []], max_new_tokens: 9, state });
      expect(rest.new_tokens).to.deep.equal(whole.new_tokens.map((row) => row.slice(5)));
      state!.dispose();
    });

    it('leaves a state exactly after the last token of each row, however rows end', async () => {
      const eos = greedy(prompts[1]!, 12)[2];
      for (const options of [{ eos_token_id: eos }, { max_length: 8 }, { eos_token_id: eos, max_time: 100 }]) {
        const state = await engine.createState(3);
        const { new_tokens } = await run({ input_ids: prompts, max_new_tokens: 12, ...options, state });
        expect(state.rows).to.deep.equal(prompts.map((p, i) => [...p, ...new_tokens[i]!]));
        state.dispose();
      }
    });

    it('stops at an abort with what there is, the state usable', async () => {
      const controller = new AbortController();
      const got: number[] = [];
      const streamer = {
        put: (rows: readonly (readonly number[])[]) => {
          got.push(...rows[0]!);
          if (got.length > 8) controller.abort();
        },
        end: () => {},
      };
      const state = await engine.createState(1);
      const inputs = { input_ids: [prompts[0]!], max_new_tokens: 1000, streamer, signal: controller.signal, state };
      const { new_tokens, finish_reasons } = await run(inputs);
      expect(finish_reasons).to.deep.equal(['abort']);
      expect(new_tokens[0]!.length).to.be.within(5, 40);
      expect(new_tokens[0]).to.deep.equal(greedy(prompts[0]!, new_tokens[0]!.length));
      expect(got).to.deep.equal([...prompts[0]!, ...new_tokens[0]!]);
      const rest = await run({ input_ids: [[]], max_new_tokens: 4, state });
      expect([...new_tokens[0]!, ...rest.new_tokens[0]!]).to.deep.equal(greedy(prompts[0]!, new_tokens[0]!.length + 4));
      state.dispose();
    });

    it('leaves nothing behind when a streamer, the prefill or the caller fails', async () => {
      const fail = { put: () => Promise.reject(new Error('closed')), end: () => {} };
      expect((await rejection(run({ input_ids: prompts, streamer: fail }))).message).to.equal('closed');
      const signal = AbortSignal.abort(new Error('not now'));
      expect((await rejection(run({ input_ids: prompts, signal }))).message).to.equal('not now');
      const late = new AbortController();
      const streamer = { put: () => late.abort(new Error('later')), end: () => {} };
      expect((await rejection(run({ input_ids: prompts, streamer, signal: late.signal }))).message).to.equal('later');
    });

    it('feeds prompts in pieces when asked, with progress', async () => {
      const seen: number[] = [];
      const onProgress = (done: number): void => void seen.push(done);
      const { new_tokens } = await run({
        input_ids: prompts,
        max_new_tokens: 5,
        prefill_chunk_size: 2,
        on_progress: onProgress,
      });
      expect(new_tokens).to.deep.equal(prompts.map((p) => greedy(p, 5)));
      expect(seen).to.deep.equal([2, 4, 5]);
    });

    it('stops in time', async () => {
      const started = performance.now();
      const { finish_reasons } = await run({ input_ids: [[1]], max_new_tokens: 1e6, max_time: 0.05 });
      expect(finish_reasons).to.deep.equal(['time']);
      expect(performance.now() - started).to.be.within(49, 2000);
    });
  });
}

describe('generate', () => {
  const engine = new ToyEngine(V, logitsOf);
  const run = (inputs: GenerateInputs): Promise<GenerateOutput> => generate(engine, config, inputs);

  it("gives the same with the engine's sampling as without, for random options", async () => {
    const random = lcg(21);
    const some = <T>(...values: T[]): T => values[Math.floor(random() * values.length)]!;
    for (let round = 0; round < 60; round++) {
      const options = {
        do_sample: some(true, true, false),
        temperature: some(0.5, 1, 2),
        top_k: some(0, 1, 5, 50),
        top_p: some(0.5, 0.9, 1),
        min_p: some(null, 0.1),
        repetition_penalty: some(0.8, 1, 1.4),
        suppress_tokens: some(null, [3, 4]),
        begin_suppress_tokens: some(null, [9]),
        min_new_tokens: some(0, 4),
        eos_token_id: some<null | number | number[]>(null, 5, [5, 6, 7]),
        vocab_limit: some(null, 19),
        seed: round,
        max_new_tokens: 15,
      };
      const want = await run({ input_ids: prompts, ...options });
      for (const block of [1, 4, 16]) {
        const fast = new ToyEngine(V, logitsOf, { block });
        const got = await generate(fast, config, { input_ids: prompts, ...options });
        expect(got, JSON.stringify(options)).to.deep.equal(want);
        expect(fast.calls.decode).to.be.above(0);
        // a last token of which nobody wants the state is chosen here, where it is the best one
        expect(fast.calls.logits).to.be.at.most(options.do_sample ? 0 : 1);
      }
    }
    expect(engine.live).to.equal(0);
  });

  it('chooses here where the engine cannot, or says so', async () => {
    const fast = new ToyEngine(V, logitsOf, { block: 4 });
    await generate(fast, config, { input_ids: prompts, no_repeat_ngram_size: 2, max_new_tokens: 3 });
    const shy = Object.assign(new ToyEngine(V, logitsOf, { block: 4 }), { canSample: () => false });
    await generate(shy, config, { input_ids: prompts, max_new_tokens: 3 });
    expect([fast.calls.decode, shy.calls.decode]).to.deep.equal([0, 0]);
  });

  it('draws tokens as often as their probabilities say', async () => {
    const weights = [0.5, 0.25, 0.125, 0.125];
    const fixed = new ToyEngine(4, () => Float32Array.from(weights, Math.log));
    const count = 4000;
    const { new_tokens } = await generate(fixed, config, {
      input_ids: [[0]],
      do_sample: true,
      seed: 3,
      max_new_tokens: count,
    });
    let chi = 0;
    weights.forEach((p, id) => {
      const got = new_tokens[0]!.filter((t) => t === id).length;
      chi += (got - p * count) ** 2 / (p * count);
    });
    expect(chi).to.be.below(16.3); // exceeded once in 1000 seeds
  });

  it('forbids the end with min_new_tokens while a penalty makes it likelier', async () => {
    const options = { min_new_tokens: 5, exponential_decay_length_penalty: [0, 1.1] as const, max_new_tokens: 8 };
    for (const choice of [{}, { do_sample: true, seed: 2, top_k: 5 }, { do_sample: true, seed: 2, top_p: 0.9 }]) {
      const { new_tokens } = await run({ input_ids: prompts, eos_token_id: 4, ...options, ...choice });
      const without = await run({ input_ids: prompts, suppress_tokens: [4], max_new_tokens: 5, ...choice });
      expect(new_tokens.map((row) => row.slice(0, 5))).to.deep.equal(without.new_tokens);
    }
  });

  it('keeps scores and logits of each step when asked', async () => {
    const options = { input_ids: prompts, max_new_tokens: 4, output_scores: true, output_logits: true };
    const { scores, logits, new_tokens } = await run({ ...options, repetition_penalty: 1.5 });
    for (let step = 0; step < 4; step++) {
      prompts.forEach((prompt, row) => {
        const ids = [...prompt, ...new_tokens[row]!.slice(0, step)];
        expect([...logits![step]![row]!]).to.deep.equal([...logitsOf(ids)]);
        expect(scores![step]![row]![ids[0]!]).to.not.equal(logits![step]![row]![ids[0]!]);
        expect(scores![step]![row]!.indexOf(Math.max(...scores![step]![row]!))).to.equal(new_tokens[row]![step]);
      });
    }
  });

  it('moves away from a negative prompt by guidance_scale', async () => {
    const scale = 1.7;
    const negative = [[8, 8], [2], [4, 4, 4]];
    const logSoftmax = (x: Float32Array): number[] => {
      const norm = Math.log(x.reduce((a, v) => a + Math.exp(v), 0));
      return [...x].map((v) => v - norm);
    };
    const want = prompts.map((prompt, row) => {
      const out: number[] = [];
      for (let k = 0; k < 8; k++) {
        const c = logSoftmax(logitsOf([...prompt, ...out]));
        const u = logSoftmax(logitsOf([...negative[row]!, ...out]));
        const guided = c.map((v, i) => scale * (v - u[i]!) + u[i]!);
        out.push(guided.indexOf(Math.max(...guided)));
      }
      return out;
    });
    const inputs = { input_ids: prompts, max_new_tokens: 8, guidance_scale: scale };
    expect((await run({ ...inputs, negative_prompt_ids: negative })).new_tokens).to.deep.equal(want);
    // Without a negative prompt: the last id of the prompt.
    const last = await run({ ...inputs, negative_prompt_ids: prompts.map((p) => p.slice(-1)) });
    expect((await run(inputs)).new_tokens).to.deep.equal(last.new_tokens);
    expect(engine.live).to.equal(0);
  });

  it('takes processors and criteria of the caller', async () => {
    const seen: number[] = [];
    const process = (ids: readonly number[], scores: Float32Array, row: number): void => {
      seen.push(row);
      scores.fill(-Infinity);
      scores[(ids.at(-1)! + 1) % V] = 0;
    };
    const done = (ids: readonly number[]): boolean => ids.at(-1) === 8;
    const inputs = { input_ids: [[3], [5]], logits_processor: [{ process }], stopping_criteria: [{ done }] };
    const { new_tokens, finish_reasons } = await run({ ...inputs, max_new_tokens: 9 });
    expect(new_tokens).to.deep.equal([
      [4, 5, 6, 7, 8],
      [6, 7, 8],
    ]);
    expect(finish_reasons).to.deep.equal(['criteria', 'criteria']);
    expect(new Set(seen)).to.deep.equal(new Set([0, 1]));
  });

  it('takes rows that have ended out of the work', async () => {
    const rows = Array.from({ length: 8 }, (_, i) => [i + 1]);
    const engine8 = new ToyEngine(V, logitsOf);
    const sizes: number[] = [];
    const step = engine8.step.bind(engine8);
    engine8.step = (state, tokens) => {
      sizes.push(tokens.length);
      return step(state, tokens);
    };
    const done = (ids: readonly number[], _: unknown, row: number): boolean => ids.length > 2 + row;
    const { new_tokens } = await generate(engine8, config, {
      input_ids: rows,
      stopping_criteria: [{ done }],
      max_new_tokens: 50,
    });
    expect(new_tokens).to.deep.equal(rows.map((r, i) => greedy(r, 2 + i)));
    expect(sizes).to.deep.equal([8, 8, 8, 8, 4, 4, 2, 1]);
    expect(engine8.live).to.equal(0);
  });

  describe('refuses', () => {
    const streamer = { put: () => {}, end: () => {} };
    const cases: [string, Partial<GenerateInputs> & Record<string, unknown>, string, typeof ArgumentError?][] = [
      ['an empty prompt', { input_ids: [[1], []] }, 'row 1 is empty'],
      ['an empty prompt, naming bos', { input_ids: [[]], bos_token_id: 6 }, 'bos_token_id 6'],
      ['no prompt', { input_ids: [] }, 'no rows'],
      ['what are no rows', { input_ids: 'text' as never }, 'input_ids', ArgumentError],
      ['a row that is none', { input_ids: [[1], 2] as never }, 'Row 1', ArgumentError],
      ['an id outside the vocabulary', { input_ids: [[1, V]] }, `holds ${V} at position 1`, ArgumentError],
      ['an id that is no integer', { input_ids: [[1.5]] }, '1.5', ArgumentError],
      ['a mask of another shape', { input_ids: [[1, 2]], attention_mask: [[1]] }, 'attention_mask', ArgumentError],
      ['a mask that is all padding', { input_ids: [[1, 2]], attention_mask: [[0, 0]] }, 'empty'],
      ['a prompt longer than max_length', { max_length: 2 }, 'max_length'],
      ['an unknown option', { max_tokens: 3 }, 'max_tokens'],
      ['an option in camelCase', { maxNewTokens: 3 }, 'Did you mean max_new_tokens'],
      ['assisted decoding', { assistant_model: {} }, 'assistant_model'],
      ['groups of beams in a given config', { generation_config: { num_beam_groups: 2 } as never }, 'num_beam_groups'],
      ['a cache that there is not', { cache_implementation: 'static' }, 'cache_implementation'],
      ['a temperature of 0', { do_sample: true, temperature: 0 }, 'temperature'],
      ['top_p above 1', { top_p: 1.5 }, 'top_p'],
      ['stop strings without a tokenizer', { stop_strings: ['x'] }, 'tokenizer'],
      ['greedy copies', { num_return_sequences: 2 }, 'num_return_sequences'],
      ['more rows than beams', { num_beams: 2, num_return_sequences: 3 }, 'num_beams'],
      ['a streamer with beams', { num_beams: 2, streamer }, 'streamer'],
      ['a returned state with beams', { num_beams: 2, return_state: true }, 'return_state'],
      ['an end token that the model cannot write', { eos_token_id: 99 }, 'eos_token_id'],
      ['options that leave no token', { suppress_tokens: [...Array(V).keys()] }, 'No token is left'],
      ['a history of another length', { history: [] }, 'history'],
    ];
    for (const [what, inputs, part, kind = GenerationError] of cases) {
      it(what, async () => {
        const error = await rejection(run({ input_ids: prompts, ...inputs }));
        expect(error).to.be.instanceOf(kind);
        expect(error.message).to.include(part);
        expect(engine.live).to.equal(0);
      });
    }

    it('scores that are NaN', async () => {
      const broken = new ToyEngine(V, () => new Float32Array(V).fill(NaN));
      for (const options of [{}, { do_sample: true }, { num_beams: 2 }]) {
        const error = await rejection(generate(broken, config, { input_ids: prompts, ...options }));
        expect(error).to.be.instanceOf(GenerationError);
        expect(error.message).to.include('NaN');
      }
      expect(broken.live).to.equal(0);
    });

    it('one score that is NaN, of the model or of a processor', async () => {
      const broken = new ToyEngine(V, (ids) => logitsOf(ids).with(4, NaN));
      const nan = { process: (_: readonly number[], scores: Float32Array): void => void (scores[4] = NaN) };
      for (const options of [{}, { do_sample: true }, { do_sample: true, top_k: 5, top_p: 0.9 }, { num_beams: 2 }]) {
        for (const error of [
          await rejection(generate(broken, config, { input_ids: prompts, ...options })),
          await rejection(run({ input_ids: prompts, ...options, logits_processor: [nan] })),
        ]) {
          expect(error, JSON.stringify(options)).to.be.instanceOf(GenerationError);
          expect(error.message).to.match(/^The scores of (row|prompt) 0 are NaN after/);
        }
      }
      expect(broken.live).to.equal(0);
    });

    it('a state with another number of rows', async () => {
      const state = await engine.createState(2);
      expect((await rejection(run({ input_ids: prompts, state }))).message).to.include('2 rows');
      state.dispose();
    });
  });
});
