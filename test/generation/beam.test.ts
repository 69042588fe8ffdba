import { expect } from 'chai';
import { generate, GenerationConfig } from '../../src/generation/index.js';
import type { GenerateInputs, GenerateOutput } from '../../src/generation/index.js';
import { hashedLogits, ToyEngine } from '../support/toy_engine.js';

const V = 4;
const logitsOf = hashedLogits(V, 4);
const config = new GenerationConfig();

function logSoftmax(x: Float32Array): number[] {
  const norm = Math.log(x.reduce((a, v) => a + Math.exp(v), 0));
  return [...x].map((v) => v - norm);
}

/** Every continuation of a prompt up to a length, with its score; ends at eos. */
function all(prompt: number[], length: number, eos: number, penalty = 1): { tokens: number[]; score: number }[] {
  const out: { tokens: number[]; score: number }[] = [];
  const visit = (tokens: number[], sum: number): void => {
    if (tokens.length === length || tokens.at(-1) === eos) {
      out.push({ tokens, score: sum / tokens.length ** penalty });
      return;
    }
    logSoftmax(logitsOf([...prompt, ...tokens])).forEach((p, id) => visit([...tokens, id], sum + p));
  };
  visit([], 0);
  return out.sort((a, b) => b.score - a.score);
}

describe('beam search', () => {
  const engine = new ToyEngine(V, logitsOf);
  const run = (inputs: GenerateInputs): Promise<GenerateOutput> => generate(engine, config, inputs);
  afterEach(() => expect(engine.live).to.equal(0));
  const prompts = [[1, 2], [3], [0, 0, 2]];

  it('with enough beams finds the best of all continuations, in order, with their scores', async () => {
    for (const prompt of prompts) {
      for (const length_penalty of [0, 1, 2]) {
        const options = { num_beams: 64, num_return_sequences: 10, max_new_tokens: 3, length_penalty };
        const output = await run({ input_ids: [prompt], early_stopping: 'never', eos_token_id: 1, ...options });
        const want = all(prompt, 3, 1, length_penalty).slice(0, 10);
        expect(output.new_tokens).to.deep.equal(want.map((w) => w.tokens));
        want.forEach((w, i) => expect(output.sequences_scores![i]).to.be.closeTo(w.score, 1e-5));
      }
    }
  });

  it('gives each prompt of a batch what it gets alone', async () => {
    for (const early_stopping of [true, false, 'never'] as const) {
      const options = { num_beams: 3, num_return_sequences: 3, max_new_tokens: 7, eos_token_id: 1, early_stopping };
      const together = await run({ input_ids: prompts, ...options });
      for (const [i, prompt] of prompts.entries()) {
        const alone = await run({ input_ids: [prompt], ...options });
        expect(together.new_tokens.slice(3 * i, 3 * i + 3)).to.deep.equal(alone.new_tokens);
        expect(together.sequences_scores!.slice(3 * i, 3 * i + 3)).to.deep.equal(alone.sequences_scores);
      }
    }
  });

  it('says where each token came from: the scores add up along the beams', async () => {
    const options = { num_beams: 3, num_return_sequences: 3, max_new_tokens: 6, output_scores: true };
    const output = await run({ input_ids: [prompts[0]!], ...options });
    output.new_tokens.forEach((tokens, row) => {
      const origins = output.beam_indices![row]!;
      expect(origins.length).to.equal(tokens.length);
      const sum = tokens.reduce((a, id, step) => a + output.scores![step]![origins[step]!]![id]!, 0);
      expect(sum / tokens.length).to.be.closeTo(output.sequences_scores![row]!, 1e-5);
    });
  });

  it('obeys processors, and ends with the forced end token', async () => {
    const options = { num_beams: 4, num_return_sequences: 4, max_new_tokens: 5, eos_token_id: 1 };
    const output = await run({ input_ids: prompts, ...options, suppress_tokens: [2], forced_eos_token_id: 1 });
    for (const tokens of output.new_tokens) {
      expect(tokens).to.not.include(2);
      expect(tokens.at(-1)).to.equal(1);
    }
  });

  it('samples rows that differ, the same for a seed', async () => {
    const options = { num_beams: 3, num_return_sequences: 3, max_new_tokens: 6, do_sample: true, top_k: 0 };
    const first = await run({ input_ids: prompts, ...options, seed: 1 });
    expect((await run({ input_ids: prompts, ...options, seed: 1 })).new_tokens).to.deep.equal(first.new_tokens);
    expect((await run({ input_ids: prompts, ...options, seed: 2 })).new_tokens).to.not.deep.equal(first.new_tokens);
    expect(new Set(first.sequences.map((s) => s.join())).size).to.equal(9);
  });

  it('goes on from a state without changing it beyond the prompt', async () => {
    const options = { num_beams: 3, num_return_sequences: 2, max_new_tokens: 5 };
    const whole = await run({ input_ids: [[1, 2, 3]], ...options });
    const state = await engine.createState(1);
    await engine.prefill(state, [Int32Array.of(1, 2)]);
    const part = await run({ input_ids: [[3]], state, ...options });
    expect(part.new_tokens).to.deep.equal(whole.new_tokens);
    expect(state.rows).to.deep.equal([[1, 2, 3]]);
    state.dispose();
  });

  it('guided by a negative prompt, reorders both states', async () => {
    const options = { num_beams: 16, num_return_sequences: 3, max_new_tokens: 2, guidance_scale: 1.6 };
    const { new_tokens } = await run({ input_ids: [[1, 2]], negative_prompt_ids: [[3, 3]], ...options });
    const guided = (ids: number[]): number[] => {
      const c = logSoftmax(logitsOf([1, 2, ...ids]));
      const u = logSoftmax(logitsOf([3, 3, ...ids]));
      return c.map((v, i) => 1.6 * (v - u[i]!) + u[i]!);
    };
    const want = guided([])
      .flatMap((first, a) => guided([a]).map((second, b) => ({ tokens: [a, b], score: first + second })))
      .sort((x, y) => y.score - x.score);
    expect(new_tokens).to.deep.equal(want.slice(0, 3).map((w) => w.tokens));
  });

  it('ends early with its best rows at an abort', async () => {
    const controller = new AbortController();
    let steps = 0;
    const process = (): void => {
      if (++steps === 9) controller.abort();
    };
    const options = { num_beams: 3, num_return_sequences: 2, max_new_tokens: 50, signal: controller.signal };
    const output = await run({ input_ids: [[1, 2]], logits_processor: [{ process }], ...options });
    expect(output.new_tokens.map((t) => t.length)).to.deep.equal([3, 3]);
    expect(output.finish_reasons).to.deep.equal(['abort', 'abort']);
  });
});
