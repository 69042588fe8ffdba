import { expect } from 'chai';
import { GenerationError } from '../../src/base/errors.js';
import { buildProcessors } from '../../src/generation/build.js';
import { GenerationConfig } from '../../src/generation/config.js';
import * as p from '../../src/generation/processors.js';
import * as w from '../../src/generation/warpers.js';
import type { LogitsProcessor } from '../../src/generation/processors.js';
import { thrown } from '../support/errors.js';
import { loadGolden, readTensors, vectorOf } from '../support/goldens.js';
import { lcg } from '../support/random.js';

interface Setting {
  setting: string;
  value: unknown;
}
interface Output {
  tensor: string;
  chain: Setting[];
  kept_per_row: number[];
}

/** The options and the context that a golden's chain of settings stands for, after `seen` tokens. */
function optionsOf(
  chain: Setting[],
  seen: number,
): { options: Record<string, unknown>; prompt_length: number; max_length: number } {
  const options: Record<string, unknown> = { do_sample: true, top_k: 0 };
  let prompt_length = seen;
  let max_length = Infinity;
  for (const { setting, value } of chain) {
    const v = value as Record<string, unknown>;
    if (setting === 'min_new_tokens') {
      options.min_new_tokens = v.min_new_tokens;
      options.eos_token_id = v.eos_token_id;
      prompt_length = v.prompt_length as number;
    } else if (setting === 'min_length') {
      options.min_length = v.min_length;
      options.eos_token_id = v.eos_token_id;
    } else if (setting === 'begin_suppress_tokens') {
      options.begin_suppress_tokens = v.tokens;
      prompt_length = v.begin_index as number;
    } else if (setting === 'forced_eos_token_id') {
      options.forced_eos_token_id = v.eos_token_id;
      max_length = v.max_length as number;
    } else if (setting === 'exponential_decay_length_penalty') {
      options.exponential_decay_length_penalty = [v.start, v.factor];
      options.eos_token_id = v.eos_token_id;
      prompt_length = v.prompt_length as number;
    } else {
      options[setting] = value;
    }
  }
  return { options, prompt_length, max_length };
}

const run = (list: LogitsProcessor[], ids: number[], scores: number[] | Float32Array, row = 0): Float32Array => {
  const out = Float32Array.from(scores);
  for (const processor of list) processor.process(ids, out, row);
  return out;
};

describe('logits processors and warpers', () => {
  const golden = loadGolden('processors');
  const logits = readTensors(`${golden.dir}/inputs.safetensors`).get('logits')!;
  const input_ids = golden.inputs.input_ids as number[][];
  const outputs = golden.json.outputs as Output[];

  it('has a chain of settings for every golden output', () => {
    expect(outputs.map(({ tensor }) => tensor).sort()).to.deep.equal([...golden.expected.keys()].sort());
  });

  for (const { tensor, chain, kept_per_row } of outputs) {
    it(`meets the golden ${tensor}`, () => {
      const { options, prompt_length, max_length } = optionsOf(chain, input_ids[0]!.length);
      const resolved = new GenerationConfig().resolve(options);
      const list = buildProcessors(resolved, { prompt_length, max_length, batch_id: 0 });
      expect(list.length).to.equal(chain.filter((c) => !(c.setting === 'top_k' && c.value === 0)).length);
      for (const [row, ids] of input_ids.entries()) {
        const got = run(list, ids, vectorOf(logits, row), row);
        const want = vectorOf(golden.tensor(tensor), row);
        const removed = (a: Float32Array): number[] => [...a.keys()].filter((i) => a[i] === -Infinity);
        expect(removed(got)).to.deep.equal(removed(want));
        expect(want.length - removed(got).length).to.equal(kept_per_row[row]);
        want.forEach((x, i) => x !== -Infinity && expect(got[i]).to.be.closeTo(x, 1e-5));
      }
    });
  }

  it('applies them in the order of transformers', () => {
    const custom = { process: (): void => {} };
    const options = new GenerationConfig().resolve({
      renormalize_logits: true,
      eta_cutoff: 0.1,
      epsilon_cutoff: 0.1,
      typical_p: 0.9,
      min_p: 0.1,
      top_p: 0.9,
      top_k: 5,
      top_h: 0.5,
      temperature: 0.5,
      do_sample: true,
      begin_suppress_tokens: [3],
      suppress_tokens: [2],
      exponential_decay_length_penalty: [1, 2],
      remove_invalid_values: true,
      forced_eos_token_id: 1,
      forced_bos_token_id: 0,
      min_new_tokens: 2,
      min_length: 2,
      bad_words_ids: [[7]],
      no_repeat_ngram_size: 2,
      repetition_penalty: 1.2,
      sequence_bias: [[[5], 1]],
      eos_token_id: 1,
    });
    const row = { prompt_length: 3, max_length: 9, batch_id: 0, prefix_allowed_tokens_fn: () => [1] };
    const names = buildProcessors(options, { ...row, custom: [custom] }).map((x) => x.constructor.name);
    expect(names).to.deep.equal([
      'SequenceBiasLogitsProcessor',
      'RepetitionPenaltyLogitsProcessor',
      'NoRepeatNGramLogitsProcessor',
      'NoBadWordsLogitsProcessor',
      'MinLengthLogitsProcessor',
      'MinNewTokensLengthLogitsProcessor',
      'PrefixConstrainedLogitsProcessor',
      'ForcedBOSTokenLogitsProcessor',
      'ForcedEOSTokenLogitsProcessor',
      'InfNanRemoveLogitsProcessor',
      'ExponentialDecayLengthPenalty',
      'SuppressTokensLogitsProcessor',
      'SuppressTokensAtBeginLogitsProcessor',
      'Object',
      'TemperatureLogitsWarper',
      'TopHLogitsWarper',
      'TopKLogitsWarper',
      'TopPLogitsWarper',
      'MinPLogitsWarper',
      'TypicalLogitsWarper',
      'EpsilonLogitsWarper',
      'EtaLogitsWarper',
      'LogitNormalization',
    ]);
  });

  it('lets a processor of the caller take the place of ours of the same class', () => {
    const mine = new p.SuppressTokensLogitsProcessor([4]);
    const options = new GenerationConfig().resolve({ suppress_tokens: [2] });
    const list = buildProcessors(options, { prompt_length: 1, max_length: 9, batch_id: 0, custom: [mine] });
    expect(list).to.deep.equal([mine]);
  });

  it('no_repeat_ngram_size agrees with a plain search for repeated n-grams', () => {
    const random = lcg(3);
    for (let n = 1; n <= 4; n++) {
      const ids = Array.from({ length: 60 }, () => Math.floor(random() * 4));
      const got = run([new p.NoRepeatNGramLogitsProcessor(n)], ids, new Array<number>(4).fill(0));
      const seen = new Set<string>();
      for (let i = 0; i + n <= ids.length; i++) seen.add(ids.slice(i, i + n).join());
      const prefix = n === 1 ? [] : ids.slice(-(n - 1));
      for (let id = 0; id < 4; id++) expect(got[id] === -Infinity).to.equal(seen.has([...prefix, id].join()));
    }
  });

  it('top_p, top_k and min_p keep what a sort says, ties and removed entries included', () => {
    const random = lcg(5);
    for (let round = 0; round < 30; round++) {
      const scores = Float32Array.from({ length: 200 }, () => Math.round(random() * 40) / 4 - 5);
      for (let i = 0; i < 20; i++) scores[Math.floor(random() * 200)] = -Infinity;
      const total = scores.reduce((a, s) => a + Math.exp(s), 0);
      const probability = (i: number): number => Math.exp(scores[i]!) / total;
      const best = [...scores.keys()].sort((a, b) => scores[b]! - scores[a]! || b - a);
      const k = 1 + Math.floor(random() * 50);
      const topK = run([new w.TopKLogitsWarper(k)], [], scores);
      const minP = run([new w.MinPLogitsWarper(0.1)], [], scores);
      const topP = run([new w.TopPLogitsWarper(0.8)], [], scores);
      let mass = 0;
      for (const i of best) {
        expect(topK[i]! > -Infinity).to.equal(scores[i]! >= scores[best[k - 1]!]! && scores[i]! > -Infinity);
        expect(minP[i]! > -Infinity).to.equal(probability(i) >= 0.1 * probability(best[0]!));
        // Kept while what is better does not reach 0.8 yet (a hair's breadth at the border is left open).
        if (Math.abs(mass - 0.8) > 1e-9) expect(topP[i]! > -Infinity).to.equal(mass < 0.8 && scores[i]! > -Infinity);
        mass += probability(i);
      }
    }
  });

  it('prefix_allowed_tokens_fn allows what it names, and wins over what removed all of that', () => {
    const processor = new p.PrefixConstrainedLogitsProcessor((batch, ids) => [batch, ids[0]!], 2);
    expect([...run([processor], [4], [1, 2, 3, 4, 5])]).to.deep.equal([-Infinity, -Infinity, 3, -Infinity, 5]);
    const gone = run([processor], [4], [1, 2, -Infinity, 4, -Infinity]);
    expect([...gone]).to.deep.equal([-Infinity, -Infinity, 0, -Infinity, 0]);
    const none = new p.PrefixConstrainedLogitsProcessor(() => [], 1);
    expect(thrown(() => run([none], [4], [1]))).to.be.instanceOf(GenerationError);
  });

  it('exponential_decay_length_penalty leaves an end that is forbidden so', () => {
    // transformers 5.24: ExponentialDecayLengthPenalty((0, factor), [2, 1], 1) of these scores after three ids
    for (const [factor, want] of [
      [1.1, -1.58],
      [0.9, -2.38],
      [1, -2],
    ] as const) {
      const got = run([new p.ExponentialDecayLengthPenalty([0, factor], [2, 1], 1)], [1, 2, 3], [1, -2, -Infinity, 3]);
      expect([got[0], got[2], got[3]]).to.deep.equal([1, -Infinity, 3]);
      expect(got[1]).to.be.closeTo(want, 1e-6);
    }
  });

  it('hide no NaN, of either sign, among scores that they narrow', () => {
    const bits = new Uint32Array(6);
    for (const nan of [0x7fc00000, 0xffc00000]) {
      for (const at of [0, 3, 5]) {
        for (const [name, warper] of Object.entries({
          top_k: new w.TopKLogitsWarper(2),
          top_p: new w.TopPLogitsWarper(0.5),
          top_h: new w.TopHLogitsWarper(0.5),
          min_p: new w.MinPLogitsWarper(0.5),
          typical_p: new w.TypicalLogitsWarper(0.5),
          epsilon_cutoff: new w.EpsilonLogitsWarper(0.3),
          eta_cutoff: new w.EtaLogitsWarper(0.3),
        })) {
          const scores = new Float32Array(bits.buffer);
          scores.set([1, 4, -Infinity, 2, 3, 0]);
          bits[at] = nan;
          warper.process([], scores);
          expect(scores[at], `${name} at ${at}`).to.be.NaN;
        }
      }
    }
  });

  it('removes the padding rows of the vocabulary', () => {
    const options = new GenerationConfig().resolve({ remove_invalid_values: true });
    const list = buildProcessors(options, { prompt_length: 1, max_length: 9, batch_id: 0, vocab_limit: 3 });
    const got = run(list, [0], [1, NaN, Infinity, 9, Infinity]);
    expect(got[1]).to.equal(0);
    expect(got[2]).to.be.above(1e38);
    expect([...got.subarray(3)]).to.deep.equal([-Infinity, -Infinity]);
  });

  it('forces the first and the last id', () => {
    const bos = run([new p.ForcedBOSTokenLogitsProcessor(2)], [9], [1, 2, 3]);
    expect([...bos]).to.deep.equal([-Infinity, -Infinity, 0]);
    expect([...run([new p.ForcedBOSTokenLogitsProcessor(2)], [9, 9], [1, 2, 3])]).to.deep.equal([1, 2, 3]);
    expect([...run([new p.ForcedEOSTokenLogitsProcessor(4, [1])], [9, 9], [1, 2, 3])]).to.deep.equal([1, 2, 3]);
  });

  it('refuses a bias for an id outside the vocabulary', () => {
    const error = thrown(() => run([new p.NoBadWordsLogitsProcessor([[7]])], [0], [1, 2]));
    expect(error).to.be.instanceOf(GenerationError);
    expect(error.message).to.include('7').and.to.include('2 ids');
  });
});
