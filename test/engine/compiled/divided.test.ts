/** How a model is taken apart for several devices, and one that generates on two of them; divided.long.ts has more. */
import { expect } from 'chai';
import { stretchesOf } from '../../../src/engine/compiled/divided_model.js';
import { stateLayout } from '../../../src/engine/compiled/divided_states.js';
import { CompiledEngine } from '../../../src/engine/compiled/compiled_engine.js';
import type { Division } from '../../../src/engine/placement/division.js';
import { useBackend } from '../../support/backends.js';
import { expectClose } from '../../support/compare.js';
import { DIVISIONS, LAYERS } from '../../support/divisions.js';
import { lcg } from '../../support/random.js';
import { randomIds, tinyModel } from '../../support/tiny_model.js';

describe('a model on several devices', () => {
  before(() => useBackend('tensorflow'));

  it('reads a prompt and a token as the oracle does', async function () {
    this.timeout(120_000);
    const { model, oracle } = tinyModel({ num_hidden_layers: LAYERS });
    const engine = new CompiledEngine(model.weights, { segments: [4], products: 'float32' }, DIVISIONS['two devices']);
    try {
      const state = await engine.createState(1);
      await engine.prefill(state, [Int32Array.of(3, 1, 4, 1, 5)]);
      await engine.step(state, Int32Array.of(9));
      const want = oracle([3, 1, 4, 1, 5, 9]).logits.data.slice(-11);
      expectClose((await engine.logits(state))[0]!, Float32Array.from(want), 1e-4, 'logits');
    } finally {
      engine.dispose();
      model.dispose();
    }
  });

  it('reads prompts in pieces that devices hand on as they do whole ones: states, counts, streams, rows that are shorter', async function () {
    this.timeout(120_000);
    const { model } = tinyModel({ num_hidden_layers: LAYERS });
    const prompts = randomIds(lcg(5), 2, 21, 11);
    const rows = [prompts[0]!, prompts[1]!.slice(0, 5)].map((row) => Int32Array.from(row));
    const read = async (division: Division | null, piece: number): Promise<unknown[]> => {
      const options = { segments: [4, 12], products: 'float32', batches: [2], piece } as const;
      const engine = new CompiledEngine(model.weights, options, division);
      const state = await engine.createState(2);
      const streams: [number, number, number, Float32Array][] = [];
      const told: number[] = [];
      await engine.prefill(state, rows, {
        on_hidden: (row, hidden, begin, count) => void streams.push([row, begin, count, hidden.slice()]),
        on_progress: (done) => void told.push(done),
      });
      const [logits, { tensors, seen, fed }] = [await engine.logits(state), await state.toArrays()];
      engine.dispose();
      return [streams, told, seen, fed, logits, Object.values(tensors).map(({ data }) => data)];
    };
    const close = (got: unknown, want: unknown, what: string): void => {
      if (got instanceof Float32Array) expectClose(got, want as Float32Array, 1e-5, what);
      else if (Array.isArray(got)) {
        expect(got, what).to.have.length((want as unknown[]).length);
        got.forEach((one, i) => close(one, (want as unknown[])[i], `${what}, ${i}`));
      } else expect(got, what).to.deep.equal(want);
    };
    try {
      const want = await read(null, 256);
      for (const piece of [4, 5]) close(await read(DIVISIONS['two devices']!, piece), want, `pieces of ${piece}`);
      close(await read(DIVISIONS['three devices, one of them twice']!, 2), want, 'a device twice');
    } finally {
      model.dispose();
    }
  });

  it('runs in stretches, and its states are parts of those of one device', () => {
    const [two, three] = Object.values(DIVISIONS) as [Division, Division];
    expect(stretchesOf(two).map(({ device, embeds, runs, norms, heads }) => [device, embeds, runs.length, norms, heads])).to.deep.equal([
      [0, true, 1, false, false],
      [1, false, 1, true, true],
    ]); // prettier-ignore
    expect(stretchesOf(three).map(({ device }) => device)).to.deep.equal([2, 0, 1, 0, 1, 2]);
    const { model } = tinyModel({ num_hidden_layers: LAYERS });
    const { network } = model;
    const [whole, parts] = [stateLayout(network, 'float32', null), stateLayout(network, 'float32', three)];
    const values = whole.variables(3).map(({ shape }, k) => Float32Array.from({ length: shape.reduce((a, n) => a * n, 1) }, (_, i) => k * 1000 + i)); // prettier-ignore
    const cut = parts.parts(values, 3);
    expect(cut.map(({ length }) => length)).to.deep.equal(parts.variables(3).map(({ shape }) => shape.reduce((a, n) => a * n, 1))); // prettier-ignore
    expect(parts.whole(cut, 3)).to.deep.equal(values);
    // [3, 4, size]: layers 1 of the second row lie behind one whole row and one layer
    const size = values[0]!.length / 12;
    const second = parts.variables(3).findIndex(({ name }) => name.endsWith('conv.1'));
    expect(cut[second]![size]).to.equal(values[0]![(4 + 1) * size]);
    model.dispose();
  });
});
