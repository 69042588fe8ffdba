/** Sampling inside the program against the processors and warpers on the host: what is kept, what is drawn, what is refused. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import {
  bestTokens,
  CHOICE,
  remaining,
  sampleTokens,
  samplingSettings,
} from '../../../src/engine/compiled/sampling.js';
import { type EngineSampling, GREEDY } from '../../../src/generation/engine.js';
import { RepetitionPenaltyLogitsProcessor } from '../../../src/generation/processors.js';
import { argmax, draw } from '../../../src/generation/scores.js';
import * as w from '../../../src/generation/warpers.js';
import { jit } from '../../../src/jit/index.js';
import { useBackend } from '../../support/backends.js';
import { lcg } from '../../support/random.js';

/** The same on the host, in place. */
function onHost(s: EngineSampling, history: readonly number[], scores: Float32Array): void {
  const rules = [
    s.repetition_penalty !== 1 && new RepetitionPenaltyLogitsProcessor(s.repetition_penalty),
    s.temperature !== 1 && new w.TemperatureLogitsWarper(s.temperature),
    s.top_k > 0 && new w.TopKLogitsWarper(s.top_k),
    s.top_p < 1 && new w.TopPLogitsWarper(s.top_p),
    s.min_p !== null && new w.MinPLogitsWarper(s.min_p),
    s.typical_p !== undefined && new w.TypicalLogitsWarper(s.typical_p),
    s.epsilon_cutoff !== undefined && new w.EpsilonLogitsWarper(s.epsilon_cutoff),
    s.eta_cutoff !== undefined && new w.EtaLogitsWarper(s.eta_cutoff),
  ];
  for (const rule of rules) if (rule) rule.process(history, scores);
}

const CASES: Record<string, Partial<EngineSampling>> = {
  plain: {},
  temperature: { temperature: 0.6 },
  top_k: { top_k: 7 },
  'top_k of more than there are': { top_k: 5000 },
  top_p: { top_p: 0.8137 },
  'top_p, little': { top_p: 0.0371 },
  'top_p of none': { top_p: 0 },
  'top_p, nearly all': { top_p: 0.99913 },
  'top_k and top_p': { top_k: 40, top_p: 0.7093, temperature: 1.3 },
  min_p: { min_p: 0.2 },
  'min_p of all': { min_p: 1 },
  'top_k, top_p, min_p, penalty': { top_k: 25, top_p: 0.9037, min_p: 0.05, repetition_penalty: 1.7, temperature: 0.8 },
  'penalty below one': { repetition_penalty: 0.5 },
  typical: { typical_p: 0.6131 },
  epsilon: { epsilon_cutoff: 0.00713 },
  eta: { eta_cutoff: 0.0371 },
  all: { top_k: 90, top_p: 0.9513, min_p: 0.01, typical_p: 0.9017, epsilon_cutoff: 0.0013, eta_cutoff: 0.0017 },
};

/** Scores of a row: spread like a model's, in steps that make ties, all equal, or some of them removed. */
const SHAPES: Record<string, (random: () => number) => number> = {
  spread: (random) => 4 * (random() + random() + random() - 1.5),
  ties: (random) => Math.round(6 * random()) / 2 - 1,
  equal: () => -0.25,
  removed: (random) => (random() < 0.7 ? -Infinity : Math.round(20 * random()) / 4),
  'zeros of both signs': (random) => [0, -0, 1e-3, -1e-3][Math.floor(4 * random())]!,
  large: (random) => 1e4 + 3 * random(),
};

const ROWS = 3;

describe('sampling inside the program', function () {
  this.timeout(60_000);
  before(() => useBackend('tensorflow'));
  const kept = jit((scores: tf.Tensor2D, settings: tf.Tensor1D) => remaining(scores, settings));
  const sample = jit(sampleTokens);
  const best = jit(bestTokens);
  after(() => [kept, sample, best].forEach((fn: { dispose(): void }) => fn.dispose()));

  const rowsOf = (v: number, shape: string, random: () => number): Float32Array[] =>
    Array.from({ length: ROWS }, () => Float32Array.from({ length: v }, () => SHAPES[shape]!(random)));
  const matrix = (rows: readonly Float32Array[]): tf.Tensor2D =>
    tf.tensor2d(Float32Array.from(rows.flatMap((row) => [...row])), [rows.length, rows[0]!.length]);

  for (const [title, settings] of Object.entries(CASES)) {
    const sampling = { ...GREEDY, do_sample: true, ...settings };
    it(`keeps what the warpers keep, and draws what the host draws: ${title}`, () => {
      const random = lcg(11);
      for (const v of [2, 37, 300])
        for (const shape of Object.keys(SHAPES))
          for (let trial = 0; trial < 6; trial++) {
            const rows = rowsOf(v, shape, random);
            if (rows.some((row) => argmax(row).index < 0)) continue;
            // distances from the entropy of a millionth: float32 orders them otherwise than float64
            if (sampling.typical_p !== undefined && shape.startsWith('zeros')) continue;
            const history = Array.from({ length: 20 }, () => Math.floor(random() * v));
            const uniforms = Float32Array.from({ length: ROWS }, () => Math.floor(random() * 2 ** 24) / 2 ** 24);
            const host = rows.map((row) => row.slice());
            host.forEach((row) => onHost(sampling, history, row));
            const at = `${shape}, ${v} ids, trial ${trial}`;
            tf.tidy(() => {
              const vector = tf.tensor1d(samplingSettings(sampling));
              if (sampling.repetition_penalty === 1 && sampling.temperature === 1) {
                const weights = kept(matrix(rows), vector).dataSync();
                const got = rows.map((_, i) => [...weights.subarray(i * v, (i + 1) * v)].map((x) => x > 0));
                expect(got, at).to.deep.equal(host.map((row) => Array.from(row, (x) => x > -Infinity)));
              }
              const mask = Float32Array.from({ length: v }, (_, id) => Number(history.includes(id)));
              const tokens = sample(matrix(rows), matrix(rows.map(() => mask)), tf.tensor1d(uniforms), vector);
              expect([...tokens.dataSync()], at).to.deep.equal(host.map((row, i) => draw(row, uniforms[i]!)));
            });
          }
      // of one number of ids, whatever the settings, there is one program
      expect(kept.cacheSize).to.be.at.most(3);
      expect(sample.cacheSize).to.be.at.most(3);
    });
  }

  it('says of each row alone that a score is NaN or infinite, or that nothing is left', () => {
    const fine = Float32Array.of(1, 3, 3, -Infinity);
    const cases: [Float32Array, number][] = [
      [fine, 1],
      [Float32Array.of(1, NaN, 2, 0), CHOICE.invalid],
      [Float32Array.of(-Infinity, -Infinity, -Infinity, NaN), CHOICE.invalid],
      [new Float32Array(4).fill(NaN), CHOICE.invalid],
      [new Float32Array(4).fill(-Infinity), CHOICE.none],
      [Float32Array.of(1, Infinity, Infinity, 2), CHOICE.invalid],
      [Float32Array.of(-Infinity, -3, -Infinity, -4), 1],
    ];
    const rows = cases.map(([row]) => row);
    tf.tidy(() => {
      expect([...best(matrix(rows)).dataSync()]).to.deep.equal(cases.map(([, want]) => want));
      for (const [title, settings] of Object.entries(CASES)) {
        const vector = tf.tensor1d(samplingSettings({ ...GREEDY, do_sample: true, ...settings }));
        const history = tf.zeros<tf.Rank.R2>([rows.length, 4]);
        const tokens = [...sample(matrix(rows), history, tf.zeros([rows.length]), vector).dataSync()];
        const codes = tokens.map((id) => Math.min(id, 0));
        expect(codes, title).to.deep.equal(cases.map(([, want]) => Math.min(want, 0)));
        expect([1, 3], title).to.include(tokens.at(-1));
      }
    });
  });
});
