/** A model on several devices: logical ones of the processor, which are devices to TensorFlow. What it gives is what it gives on one. */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { expect } from 'chai';
import type { EngineSampling } from '../../../src/generation/engine.js';
import { GREEDY } from '../../../src/generation/engine.js';
import { CompiledEngine, type CompiledEngineOptions } from '../../../src/engine/compiled/compiled_engine.js';
import { stretchesOf } from '../../../src/engine/compiled/divided_program.js';
import { stateLayout } from '../../../src/engine/compiled/divided_states.js';
import { EagerEngine } from '../../../src/engine/eager_engine.js';
import type { Division } from '../../../src/engine/placement/division.js';
import { tensorCount, useBackend } from '../../support/backends.js';
import { disposedAfterEach } from '../../support/cleanup.js';
import { expectClose } from '../../support/compare.js';
import { lcg } from '../../support/random.js';
import { randomIds, tinyModel } from '../../support/tiny_model.js';

const LAYERS = 4;

/** Everything where it is awkward: norm and head apart, a device that comes twice, one that begins with no layer. */
const DIVISIONS: Record<string, Division> = {
  'two devices': { devices: [0, 1], embedding: 0, runs: [{ device: 0, from: 0, to: 2 }, { device: 1, from: 2, to: 4 }], norm: 1, head: 1 },
  'three devices, one of them twice': {
    devices: [0, 1, 2],
    embedding: 2,
    runs: [{ device: 0, from: 0, to: 1 }, { device: 1, from: 1, to: 2 }, { device: 0, from: 2, to: 4 }],
    norm: 1,
    head: 2,
  },
  'a device that is not the first': { devices: [1], embedding: 0, runs: [{ device: 0, from: 0, to: 4 }], norm: 0, head: 0 },
}; // prettier-ignore

const SEGMENTS = { segments: [4, 8], batches: [1, 2] };
const prompts = randomIds(lcg(3), 2, 11, 11);
const rows = [prompts[0]!, prompts[1]!.slice(0, 5)].map((row) => Int32Array.from(row));

describe('a model on several devices', function () {
  this.timeout(240_000);
  before(() => useBackend('tensorflow'));
  const cleanup = disposedAfterEach();

  const made = (tied = false): ReturnType<typeof tinyModel> => {
    const tiny = tinyModel({ num_hidden_layers: LAYERS, tie_word_embeddings: tied });
    cleanup.push(tiny.model);
    return tiny;
  };
  const engineOf = (
    { model }: ReturnType<typeof tinyModel>,
    division: Division | null,
    options: CompiledEngineOptions = {},
  ): CompiledEngine => {
    const engine = new CompiledEngine(model.weights, { ...SEGMENTS, ...options }, division);
    cleanup.push(engine);
    return engine;
  };

  for (const [name, division] of Object.entries(DIVISIONS))
    it(`reads, steps and carries states as the oracle does (${name})`, async () => {
      const tiny = made();
      const engine = engineOf(tiny, division);
      const state = await engine.createState(2);
      await engine.prefill(state, rows);
      const next = [7, 2];
      const check = async (read: readonly number[][]): Promise<void> => {
        const logits = await engine.logits(state);
        read.forEach((ids, i) => {
          const { logits: want } = tiny.oracle(ids);
          expectClose(logits[i]!, Float32Array.from(want.data.slice(-11)), 1e-4, `row ${i} of ${ids.length}`);
        });
      };
      const read = rows.map((row) => [...row]);
      await check(read);
      await engine.step(state, Int32Array.from(next));
      read.forEach((row, i) => row.push(next[i]!));
      await check(read);
      const { states } = tiny.oracle(read[0]!);
      const arrays = await state.toArrays();
      states.forEach(({ ssm, conv }, layer) => {
        const { data } = arrays.tensors[`layers.${layer}.ssm`]!;
        expectClose(data.subarray(0, data.length / 2), Float32Array.from(ssm.data), 1e-4, `state of layer ${layer}`);
        expect(conv.data.length).to.be.above(0);
      });
    });

  const SAMPLED: EngineSampling = {
    ...GREEDY,
    do_sample: true,
    temperature: 0.8,
    top_k: 5,
    repetition_penalty: 1.3,
    eos: [3],
  };
  it('chooses the ids that one device chooses, greedily, by chance, in blocks, with rows that end', async () => {
    const tiny = made();
    const uniforms = [0, 1].map((i) => Float32Array.from({ length: 9 }, (_, k) => ((i * 7 + k * 5) % 17) / 17));
    const ids = async (engine: CompiledEngine, sampling: EngineSampling): Promise<number[][]> => {
      const state = await engine.createState(2);
      await engine.prefill(state, rows);
      const out = await engine.decode(state, 9, sampling, rows, sampling.do_sample ? uniforms : undefined, [
        false,
        false,
      ]);
      expect(await engine.logits(state)).to.have.length(2);
      state.dispose();
      return out.map((row) => [...row]);
    };
    const one = engineOf(tiny, null);
    const want = [];
    for (const sampling of [GREEDY, { ...GREEDY, eos: [3, 5] }, SAMPLED]) want.push(await ids(one, sampling));
    for (const block of [1, 4]) {
      const engine = engineOf(tiny, DIVISIONS['two devices']!, { block, batches: [2] });
      const got = [];
      for (const sampling of [GREEDY, { ...GREEDY, eos: [3, 5] }, SAMPLED]) got.push(await ids(engine, sampling));
      expect(got, `blocks of ${block}`).to.deep.equal(want);
    }
  });

  it('hands states on between maps, engines and files, and selects rows', async () => {
    const tiny = made(true);
    const engines = [engineOf(tiny, null), ...Object.values(DIVISIONS).slice(0, 2).map((division) => engineOf(tiny, division))]; // prettier-ignore
    const eager = new EagerEngine(tiny.model.weights);
    const begun = await eager.createState(2);
    await eager.prefill(begun, rows);
    const want = await eager.logits(begun);
    let arrays = await begun.toArrays();
    begun.dispose();
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'divided-'));
    try {
      for (const [i, engine] of engines.entries()) {
        const state = await engine.fromArrays(arrays);
        const swapped = await state.select([1, 0]);
        const logits = await engine.logits(swapped);
        expectClose(logits[0]!, want[1]!, 1e-4, `engine ${i}`);
        const back = await swapped.select([1, 0]);
        swapped.dispose();
        expectClose((await engine.logits(back))[0]!, want[0]!, 1e-4, `engine ${i}, rows back`);
        const file = path.join(dir, `${i}.safetensors`);
        await engine.state_files.write(file, { arrays: await back.toArrays(), ids: [[], []], extra: {} });
        const read = await engine.state_files.read(file);
        expect(read.arrays.tensors['layers.2.conv']!.data).to.deep.equal(arrays.tensors['layers.2.conv']!.data);
        arrays = read.arrays;
        for (const each of [state, back]) each.dispose();
      }
    } finally {
      fs.rmSync(dir, { recursive: true, force: true });
    }
  });

  it('leaves no tensor behind', async () => {
    const tiny = made();
    const engine = engineOf(tiny, DIVISIONS['two devices']!);
    const before = tensorCount();
    const state = await engine.createState(1);
    await engine.prefill(state, [rows[0]!]);
    await engine.decode(state, 2, GREEDY, [rows[0]!]);
    state.dispose();
    expect(tensorCount()).to.deep.equal(before);
  });

  it('runs in stretches, and its states are parts of those of one device', () => {
    const [two, three] = Object.values(DIVISIONS) as [Division, Division];
    expect(stretchesOf(two).map(({ device, embeds, runs, norms, heads }) => [device, embeds, runs.length, norms, heads])).to.deep.equal([
      [0, true, 1, false, false],
      [1, false, 1, true, true],
    ]); // prettier-ignore
    expect(stretchesOf(three).map(({ device }) => device)).to.deep.equal([2, 0, 1, 0, 1, 2]);
    const { network } = tinyModel({ num_hidden_layers: LAYERS }).model;
    const [whole, parts] = [stateLayout(network, 'float32', null), stateLayout(network, 'float32', three)];
    const values = whole.variables(3).map(({ shape }, k) => Float32Array.from({ length: shape.reduce((a, n) => a * n, 1) }, (_, i) => k * 1000 + i)); // prettier-ignore
    const cut = parts.parts(values, 3);
    expect(cut.map(({ length }) => length)).to.deep.equal(parts.variables(3).map(({ shape }) => shape.reduce((a, n) => a * n, 1))); // prettier-ignore
    expect(parts.whole(cut, 3)).to.deep.equal(values);
    // [3, 4, size]: layers 1 of the second row lie behind one whole row and one layer
    const size = values[0]!.length / 12;
    const second = parts.variables(3).findIndex(({ name }) => name.endsWith('conv.1'));
    expect(cut[second]![size]).to.equal(values[0]![(4 + 1) * size]);
  });
});
