/** Laws of the model: splits, causality, batches, padding of any pattern; values are the oracle's, text by text. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { Mamba2Cache } from '../../../src/models/mamba2/cache.js';
import { onBackends } from '../../support/backends.js';
import { expectClose } from '../../support/compare.js';
import * as oracle from '../../support/oracle.js';
import { lcg } from '../../support/random.js';
import { randomIds, tinyModel, type TinyModel } from '../../support/tiny_model.js';

const V = 11;
const TOLERANCE = 1e-4;

/** Where a row's real tokens lie: a random mask of `length` columns with at least one 1. */
function randomMask(random: () => number, length: number): number[] {
  const mask = Array.from({ length }, () => (random() < 0.5 ? 1 : 0));
  mask[Math.floor(random() * length)] = 1;
  return mask;
}

for (const [title, overrides] of [
  ['two groups, biases, untied', {}],
  [
    'one group, no biases, tied, a limit on dt',
    { n_groups: 1, use_bias: false, tie_word_embeddings: true, time_step_limit: [0.3, 0.8] },
  ],
] as const) {
  onBackends(['tensorflow', 'wasm', 'cpu'], `model, ${title}`, () => {
    let tiny: TinyModel;
    let start: number;
    before(() => (tiny = tinyModel(overrides as never)));
    after(() => {
      tiny.model.dispose();
    });
    beforeEach(() => (start = tf.memory().numTensors));
    afterEach(() => expect(tf.memory().numTensors, 'tensors').to.equal(start));

    /** Logits [b][t][v] of a forward call. */
    const logits = (inputs: Parameters<TinyModel['model']['forward']>[0]): { data: Float32Array; t: number } => {
      const out = tiny.model.forward({ use_cache: false, ...inputs });
      const data = out.logits.dataSync<'float32'>().slice();
      const t = out.logits.shape[1];
      out.logits.dispose();
      return { data, t };
    };
    const at = ({ data, t }: { data: Float32Array; t: number }, row: number, position: number): Float32Array =>
      data.subarray((row * t + position) * V, (row * t + position + 1) * V);

    it('leaves nothing behind in a tidy, hidden states included', () => {
      const ids = randomIds(lcg(1), 1, 3, V);
      tf.tidy(() => void tiny.model.forward({ input_ids: ids, output_hidden_states: true, use_cache: false }));
    });

    it('computes what the oracle computes, states included', () => {
      const [ids] = randomIds(lcg(1), 1, 9, V);
      const want = tiny.oracle(ids!);
      const out = tiny.model.forward({ input_ids: [ids!], output_hidden_states: true });
      expectClose(out.logits, want.logits.data, TOLERANCE);
      expect(out.hidden_states!.length).to.equal(3);
      expectClose(out.hidden_states![2]!, want.hidden.data, TOLERANCE, 'last hidden state');
      out.cache!.layers.forEach(({ conv, ssm }, i) => {
        expectClose(conv, want.states[i]!.conv.data, TOLERANCE, `conv ${i}`);
        expectClose(ssm, want.states[i]!.ssm.data, TOLERANCE, `ssm ${i}`);
      });
      expect(out.cache!.seen_tokens).to.equal(9);
      out.cache!.dispose();
      tf.dispose([out.logits, ...out.hidden_states!]);
    });

    it('any split of a prompt over calls with a cache is one pass', () => {
      const random = lcg(2);
      const ids = randomIds(random, 2, 12, V);
      const whole = logits({ input_ids: ids });
      for (let round = 0; round < 12; round++) {
        const cache = Mamba2Cache.zeros(tiny.model.config, 2);
        for (let from = 0; from < 12;) {
          const to = Math.min(12, from + 1 + Math.floor(random() * 5));
          const part = logits({ input_ids: ids.map((row) => row.slice(from, to)), cache });
          for (const row of [0, 1])
            for (let j = from; j < to; j++)
              expectClose(at(part, row, j - from), at(whole, row, j), 1e-5, `round ${round}, row ${row}, token ${j}`);
          from = to;
        }
        expect(cache.seen_tokens).to.equal(12);
        cache.dispose();
      }
    });

    it('a token changes nothing before it', () => {
      const [ids] = randomIds(lcg(3), 1, 11, V);
      const whole = logits({ input_ids: [ids!] });
      for (let p = 0; p < 11; p++) {
        const changed = ids!.map((id, i) => (i === p ? (id + 1) % V : id));
        const other = logits({ input_ids: [changed] });
        expectClose(other.data.subarray(0, p * V), whole.data.subarray(0, p * V), 0, `before ${p}`);
        expect([...at(other, 0, p)]).to.not.deep.equal([...at(whole, 0, p)]);
      }
    });

    it('a row is the same alone, in a batch, and wherever it stands in it', () => {
      const ids = randomIds(lcg(4), 4, 7, V);
      const alone = ids.map((row) => logits({ input_ids: [row] }));
      for (const order of [
        [0, 1, 2, 3],
        [3, 1, 0, 2],
        [2, 2],
      ]) {
        const batch = logits({ input_ids: order.map((i) => ids[i]!) });
        order.forEach((i, row) => {
          for (let j = 0; j < 7; j++) expectClose(at(batch, row, j), at(alone[i]!, 0, j), 1e-5, `row ${i}, token ${j}`);
        });
      }
    });

    it('padding of any pattern is each text alone, also when a cache goes on', () => {
      const random = lcg(5);
      for (let round = 0; round < 8; round++) {
        const b = 3;
        const cache = Mamba2Cache.zeros(tiny.model.config, b);
        const texts: number[][] = [[], [], []];
        for (const length of [6, 3, 1, 5]) {
          const input_ids = randomIds(random, b, length, V);
          const shapes = ['left', 'right', 'both', 'gaps'];
          const attention_mask = Array.from({ length: b }, (_, i) => {
            const n = Math.floor(random() * (length + 1));
            const shape = shapes[(round + i) % 4]!;
            if (shape === 'gaps') return randomMask(random, length);
            const skip = shape === 'left' ? length - n : shape === 'both' ? Math.floor((length - n) / 2) : 0;
            return Array.from({ length }, (_, j) => (j >= skip && j < skip + n ? 1 : 0));
          });
          const got = logits({ input_ids, attention_mask, cache });
          attention_mask.forEach((mask, row) => {
            const before = texts[row]!.length;
            const real = input_ids[row]!.filter((_, j) => mask[j]);
            texts[row]!.push(...real);
            if (texts[row]!.length === 0) return;
            const want = tiny.oracle(texts[row]!).logits;
            mask
              .flatMap((m, j) => (m ? [j] : []))
              .forEach((j, k) => {
                const position = before + k;
                expectClose(
                  at(got, row, j),
                  want.data.subarray(position * V, (position + 1) * V),
                  TOLERANCE,
                  `round ${round}, row ${row}, column ${j}`,
                );
              });
          });
        }
        texts.forEach((text, row) => {
          if (text.length === 0) return;
          const { states } = tiny.oracle(text);
          tf.tidy(() => {
            cache.layers.forEach(({ conv, ssm }, i) => {
              expectClose(tf.gather(conv, [row]), states[i]!.conv.data, TOLERANCE, `conv of row ${row}`);
              expectClose(tf.gather(ssm, [row]), states[i]!.ssm.data, TOLERANCE, `ssm of row ${row}`);
            });
          });
        });
        cache.dispose();
      }
    });

    it('embeddings given are ids given', () => {
      const ids = randomIds(lcg(6), 2, 6, V);
      const mask = [
        [0, 0, 1, 1, 1, 1],
        [1, 1, 1, 0, 1, 0],
      ];
      const inputs_embeds = oracle.toTensor(
        oracle.stack(ids.map((row) => oracle.embed(row, tiny.values['backbone.embeddings.weight']!))),
      ) as tf.Tensor3D;
      const a = logits({ input_ids: ids, attention_mask: mask });
      const b = logits({ inputs_embeds, attention_mask: mask });
      mask.forEach((row, i) => row.forEach((m, j) => m && expectClose(at(b, i, j), at(a, i, j), 1e-6)));
      expect(inputs_embeds.isDisposed).to.equal(false);
      inputs_embeds.dispose();
    });

    it('logits_to_keep gives the last positions', () => {
      const ids = randomIds(lcg(7), 2, 6, V);
      const whole = logits({ input_ids: ids });
      for (const keep of [1, 2, 6, 9]) {
        const part = logits({ input_ids: ids, logits_to_keep: keep });
        const t = Math.min(keep, 6);
        expect(part.t).to.equal(t);
        for (const row of [0, 1])
          for (let j = 0; j < t; j++) expectClose(at(part, row, j), at(whole, row, 6 - t + j), 1e-6);
      }
    });

    it('the chunk size changes nothing', () => {
      const ids = randomIds(lcg(8), 1, 13, V);
      const whole = logits({ input_ids: ids });
      const other = tinyModel({ ...overrides, chunk_size: 256 } as never);
      const { logits: got, cache } = other.model.forward({ input_ids: ids });
      expectClose(got, whole.data, 1e-5);
      cache!.dispose();
      got.dispose();
      other.model.dispose();
    });
  });
}

onBackends(['tensorflow', 'cpu'], 'cache', () => {
  let tiny: TinyModel;
  before(() => (tiny = tinyModel()));
  after(() => tiny.model.dispose());
  const step = (cache: Mamba2Cache, tokens: number[]): Float32Array => {
    const { logits } = tiny.model.forward({ input_ids: tokens.map((id) => [id]), cache });
    const data = logits.dataSync<'float32'>().slice();
    logits.dispose();
    return data;
  };

  it('clones, selects, resets and survives arrays', async () => {
    const start = tf.memory().numTensors;
    const cache = Mamba2Cache.zeros(tiny.model.config, 2);
    expect(cache.has_previous_state).to.equal(false);
    tiny.model
      .forward({
        input_ids: [
          [1, 2, 3],
          [4, 5, 6],
        ],
        cache,
      })
      .logits.dispose();
    expect(cache.has_previous_state).to.equal(true);
    const copy = cache.clone();
    const turned = cache.select([1, 0, 1]);
    const arrays = await cache.toArrays();
    const back = Mamba2Cache.fromArrays(tiny.model.config, arrays);
    expect([copy, turned, back].map((c) => [c.batch, c.seen_tokens])).to.deep.equal([
      [2, 3],
      [3, 3],
      [2, 3],
    ]);
    const want = step(cache, [7, 8]);
    const moved = step(turned, [8, 7, 8]);
    expectClose(step(copy, [7, 8]), want, 0, 'clone');
    expectClose(step(back, [7, 8]), want, 1e-6, 'arrays');
    expectClose(moved, [...want.subarray(V), ...want.subarray(0, V), ...want.subarray(V)], 1e-6, 'select');
    cache.reset();
    expect(cache.seen_tokens).to.equal(0);
    expectClose(
      step(cache, [7, 8]),
      [...tiny.oracle([7]).logits.data, ...tiny.oracle([8]).logits.data],
      TOLERANCE,
      'reset',
    );
    [cache, copy, turned, back].forEach((c) => c.dispose());
    cache.dispose();
    expect(tf.memory().numTensors).to.equal(start);
  });

  it('refuses rows it does not have and arrays of another model', async () => {
    const cache = Mamba2Cache.zeros(tiny.model.config, 2);
    for (const rows of [[2], [-1], [0.5], []]) expect(() => cache.select(rows)).to.throw('batch of 2');
    const arrays = await cache.toArrays();
    const { config } = tiny.model;
    expect(() => Mamba2Cache.fromArrays(config, { ...arrays, layers: arrays.layers.slice(1) })).to.throw('1 layers');
    expect(() => Mamba2Cache.fromArrays(config, { ...arrays, batch: 3 })).to.throw('layer 0 conv');
    cache.dispose();
  });

  it('a tidy around a call keeps the cache that was given', () => {
    const cache = Mamba2Cache.zeros(tiny.model.config, 1);
    tf.tidy(() => {
      tiny.model.forward({ input_ids: [[1, 2]], cache });
    });
    expectClose(step(cache, [3]), tiny.oracle([1, 2, 3]).logits.data.subarray(2 * V), TOLERANCE);
    cache.dispose();
  });
});
