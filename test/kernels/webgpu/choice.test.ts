/** The choice of a token in WGSL against the host's own: best ids, drawn ids, ends, and scores that nothing can be chosen from. */
import { expect } from 'chai';
import { choiceKernel, flagsOf, NO_CHOICE } from '../../../src/kernels/webgpu/choice.js';
import { CONTROL } from '../../../src/kernels/webgpu/control.js';
import { argmax, draw as drawn } from '../../../src/generation/scores.js';
import { onWebGpu } from '../../support/dawn.js';
import { Draw } from '../host/cases.js';
import { control, runKernels } from './run.js';

interface Asked {
  logits: Float32Array;
  removed?: readonly number[];
  ends?: readonly number[];
  uniforms?: readonly number[];
  temperature?: number;
  topK?: number;
  steps?: number;
  pad?: number;
}

onWebGpu('WGSL choice', (device) => {
  async function chosen(asked: Asked): Promise<{ ids: number[]; word: (name: (typeof CONTROL)[number]) => number }> {
    const {
      logits,
      removed = [],
      ends = [],
      uniforms,
      temperature = 1,
      topK = 0,
      steps = uniforms?.length ?? 1,
    } = asked;
    const about = { vocabulary: logits.length, drawn: uniforms !== undefined, topK: topK > 0 };
    const kernel = choiceKernel({ ...about, batch: 1, most: steps });
    const given = {
      ...{ logits, flags: flagsOf(logits.length, removed, ends), uniforms: Float32Array.from(uniforms ?? [0]) },
      chosen: new Float32Array(steps),
      control: control({ pad: asked.pad ?? 0, top_k: topK }, temperature),
    };
    const got = await runKernels(device(), Array<typeof kernel>(steps).fill(kernel), given, ['chosen', 'control']);
    const words = new Uint32Array(got.control.buffer);
    return { ids: [...new Int32Array(got.chosen.buffer, 0, steps)], word: (name) => words[CONTROL.indexOf(name)]! };
  }

  for (const vocabulary of [1, 31, 257, 5003])
    it(`the best of ${vocabulary}, the first of equals, and none that is removed`, async () => {
      const draw = new Draw(vocabulary);
      for (let round = 0; round < 6; round++) {
        // few values, so that there are equals
        const logits = draw.numbers(vocabulary, 9).map((v) => (round % 2 ? Math.round(v) : v));
        const removed = round < 2 ? [] : [argmax(logits).index];
        const want = logits.slice();
        for (const id of removed) want[id] = -Infinity;
        const { ids, word } = await chosen({ logits, removed });
        const expected = vocabulary === 1 && removed.length ? NO_CHOICE.none : argmax(want).index;
        expect(ids).to.deep.equal([expected]);
        expect([word('token'), word('moves'), word('step')]).to.deep.equal([
          Math.max(expected, 0),
          Number(expected >= 0),
          1,
        ]);
      }
    });

  it('zeros of either sign are equals', async () => {
    expect((await chosen({ logits: Float32Array.of(-1, -0, 0) })).ids).to.deep.equal([1]);
    expect((await chosen({ logits: Float32Array.of(-1, 0, -0) })).ids).to.deep.equal([1]);
  });

  it('an end token is fed, and after it the row gives the pad and stays', async () => {
    const { ids, word } = await chosen({ logits: Float32Array.of(0, 3, 1), ends: [1], steps: 3, pad: 77 });
    expect(ids).to.deep.equal([1, 77, 77]);
    expect([word('moves'), word('finished')]).to.deep.equal([0, 1]);
    expect((await chosen({ logits: Float32Array.of(0, 3, 1), ends: [1] })).word('moves')).to.equal(1);
  });

  it('says where no id can be chosen', async () => {
    for (const wrong of [NaN, Infinity, -NaN])
      expect((await chosen({ logits: Float32Array.of(0, wrong, 1) })).ids).to.deep.equal([NO_CHOICE.invalid]);
    expect((await chosen({ logits: Float32Array.of(-Infinity, -Infinity) })).ids).to.deep.equal([NO_CHOICE.none]);
    expect((await chosen({ logits: Float32Array.of(-Infinity, -5) })).ids).to.deep.equal([1]);
    // what is removed may be anything
    expect((await chosen({ logits: Float32Array.of(NaN, -5), removed: [0] })).ids).to.deep.equal([1]);
  });

  for (const vocabulary of [2, 300, 5003])
    for (const topK of [0, 1, 40])
      it(`drawn from ${topK || 'all'} of ${vocabulary}`, async () => {
        const draw = new Draw(vocabulary + topK);
        const logits = draw.numbers(vocabulary, 4);
        const temperature = 0.7;
        const removed = [draw.whole(0, vocabulary - 1)];
        const uniforms = [0, 0.999999, ...draw.numbers(30).map((u) => Math.abs(u) * 0.999)];
        const { ids } = await chosen({ logits, removed, uniforms, temperature, topK });
        const scores = logits.map((v, id) => (removed.includes(id) ? -Infinity : v / temperature));
        const bound = topK ? [...scores].sort((a, b) => b - a)[Math.min(topK, vocabulary) - 1]! : -Infinity;
        const left = scores.map((v) => (v >= bound ? v : -Infinity));
        ids.forEach((id, i) => {
          const want = drawn(left.slice(), uniforms[i]!);
          if (id === want) return;
          // sums in float32 may take a neighbour where the number lies between two ids to six digits
          const near = [-2e-6, 2e-6].map((off) =>
            drawn(left.slice(), Math.min(Math.max(uniforms[i]! + off, 0), 1 - 1e-9)),
          );
          expect(near, `number ${uniforms[i]}`).to.include(id);
        });
      });

  it('each row of a batch by itself: scores, numbers, ends and places', async () => {
    const [vocabulary, batch, steps] = [300, 3, 4];
    for (const drawing of [false, true]) {
      const draw = new Draw(Number(drawing));
      const rows = Array.from({ length: batch }, () => draw.numbers(vocabulary, 4));
      const uniforms = rows.map(() => draw.numbers(steps).map((u) => Math.abs(u) * 0.999));
      const apart: number[][] = [];
      for (const [i, logits] of rows.entries())
        apart.push((await chosen({ logits, steps, topK: drawing ? 9 : 0, ...(drawing && { uniforms: [...uniforms[i]!] }) })).ids); // prettier-ignore
      const most = steps + 3;
      const kernel = choiceKernel({ vocabulary, drawn: drawing, topK: drawing, batch, most });
      const places = new Float32Array(batch * most).fill(7);
      const numbers = new Float32Array(batch * most);
      uniforms.forEach((row, i) => numbers.set(row, i * most));
      const control_ = rows.map((_, i) => [...control({ finished: Number(i === 1), pad: 70 + i, top_k: 9 })]);
      const given = {
        ...{ logits: Float32Array.from(rows.flatMap((row) => [...row])), flags: flagsOf(vocabulary, [], []) },
        ...{ uniforms: numbers, chosen: places, control: Uint32Array.from(control_.flat()) },
      };
      const got = await runKernels(device(), Array<typeof kernel>(steps).fill(kernel), given, ['chosen', 'control']);
      const rest = [...new Int32Array(places.buffer, 0, most - steps)];
      rows.forEach((_, i) => {
        const ids = i === 1 ? Array<number>(steps).fill(71) : apart[i]!;
        expect([...new Int32Array(got.chosen.buffer, 4 * i * most, most)], `row ${i}`).to.deep.equal([...ids, ...rest]);
        const words = new Uint32Array(got.control.buffer, 4 * i * CONTROL.length, CONTROL.length);
        expect([words[CONTROL.indexOf('step')], words[CONTROL.indexOf('moves')]]).to.deep.equal([steps, Number(i !== 1)]); // prettier-ignore
      });
    }
  });
});
