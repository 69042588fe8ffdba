/** How a model is taken apart for several devices, and one that generates on two of them; divided.long.ts has more. */
import { expect } from 'chai';
import { stretchesOf } from '../../../src/engine/compiled/divided_program.js';
import { stateLayout } from '../../../src/engine/compiled/divided_states.js';
import { CompiledEngine } from '../../../src/engine/compiled/compiled_engine.js';
import type { Division } from '../../../src/engine/placement/division.js';
import { useBackend } from '../../support/backends.js';
import { expectClose } from '../../support/compare.js';
import { DIVISIONS, LAYERS } from '../../support/divisions.js';
import { tinyModel } from '../../support/tiny_model.js';

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
