/** Calls made at once on one compiled model: each gives what it gives alone, fails alone, and lets the next go on. */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { expect } from 'chai';
import { DisposedError, Mamba2Error } from '../../src/base/errors.js';
import { GREEDY } from '../../src/generation/engine.js';
import { Mamba2ForCausalLM } from '../../src/models/mamba2/causal_lm.js';
import type { CompiledEngine, CompiledEngineOptions } from '../../src/engine/compiled/compiled_engine.js';
import { Turns } from '../../src/base/turns.js';
import { tensorCount, useBackend } from '../support/backends.js';
import { disposedAfterEach } from '../support/cleanup.js';
import { expectClose } from '../support/compare.js';
import { rejection } from '../support/errors.js';
import { lcg } from '../support/random.js';
import { randomIds, tinyModel, type TinyModel } from '../support/tiny_model.js';

const V = 11;
const TOLERANCE = 1e-4;

describe('calls at once on a compiled model', function () {
  this.timeout(180_000);
  let root: string;
  let tiny: TinyModel;
  const made = disposedAfterEach();
  const kept = <T extends { dispose(): void }>(x: T): T => (made.push(x), x);

  before(async () => {
    await useBackend('tensorflow');
    root = fs.mkdtempSync(path.join(os.tmpdir(), 'at-once-'));
    tiny = tinyModel();
    await tiny.model.save_pretrained(root);
  });
  after(() => {
    tiny.model.dispose();
    fs.rmSync(root, { recursive: true });
  });

  const load = async (options: CompiledEngineOptions = {}): Promise<Mamba2ForCausalLM> =>
    kept(await Mamba2ForCausalLM.from_pretrained(root, { engine: 'compiled', segments: [4, 8], block: 4, ...options }));
  const engineOf = async (options: CompiledEngineOptions = {}): Promise<CompiledEngine> =>
    (await (await load(options)).engine()) as CompiledEngine;
  const ids = (seed: number, length: number): number[] => randomIds(lcg(seed), 1, length, V)[0]!;
  const want = (text: readonly number[]): Float32Array =>
    Float32Array.from(tiny.oracle(text).logits.data.slice((text.length - 1) * V));

  it('are two texts that take turns, token by token', async () => {
    const engine = await engineOf();
    const texts = [ids(11, 19), ids(12, 16)];
    const read = async (text: number[]): Promise<void> => {
      const state = kept(await engine.createState(1));
      await engine.prefill(state, [Int32Array.from(text.slice(0, 9))]);
      for (let k = 9; k < text.length; k++) {
        await engine.step(state, Int32Array.of(text[k]!));
        expectClose((await engine.logits(state))[0]!, want(text.slice(0, k + 1)), TOLERANCE, `after ${k + 1}`);
      }
    };
    await Promise.all(texts.map(read));
  });

  it('build one program, however many are the first', async () => {
    const uploads: string[] = [];
    const onCompile = (name: string, phase: string): void => void (phase === 'upload' && uploads.push(name));
    const model = await load({ on_compile: onCompile });
    const start = tensorCount();
    const states = await Promise.all([1, 2, 3].map((seed) => model.prefill(ids(seed, 5))));
    for (const state of states) state.dispose();
    expect(uploads.length).to.equal(1);
    expect(tensorCount()).to.deep.equal(start);
  });

  it('wait for a prompt that is being read: a copy or a file has all of it', async () => {
    const engine = await engineOf();
    const state = kept(await engine.createState(1));
    const text = ids(21, 30);
    const reading = engine.prefill(state, [Int32Array.from(text)]);
    const [fork, arrays] = [state.clone(), state.toArrays()];
    const stepping = engine.step(state, Int32Array.of(3));
    const copy = kept(await fork);
    expect([copy.seen, (await arrays).seen]).to.deep.equal([[30], [30]]);
    await Promise.all([reading, stepping]);
    expectClose((await engine.logits(copy))[0]!, want(text), TOLERANCE, 'copy');
    expectClose((await arrays).tensors['logits']!.data, want(text), TOLERANCE, 'arrays');
    expectClose((await engine.logits(state))[0]!, want([...text, 3]), TOLERANCE, 'state');
  });

  it('that fail or are aborted make way for the next', async () => {
    const engine = await engineOf();
    const [a, b, c] = [
      kept(await engine.createState(1)),
      kept(await engine.createState(1)),
      kept(await engine.createState(2)),
    ];
    const control = new AbortController();
    const text = Int32Array.from(ids(31, 30));
    const results = await Promise.allSettled([
      engine.prefill(a, [text], { signal: control.signal, on_progress: () => control.abort(new Error('enough')) }),
      engine.prefill(b, [text], { signal: control.signal }), // waits, and never begins
      engine.logits(b), // fed nothing
      engine.step(c, Int32Array.of(1)), // one token for two rows
      engine.prefill(b, [text]),
    ]);
    const errors = results.map((result) => (result.status === 'rejected' ? (result.reason as Error).message : null));
    expect(errors.slice(0, 2)).to.deep.equal(['enough', 'enough']);
    expect(errors[2]).to.contain('row 0 has none');
    expect(errors[3]).to.contain('2 rows, got 1');
    expect(errors[4]).to.equal(null);
    expect([a.seen, b.seen]).to.deep.equal([[8], [30]]);
    expectClose((await engine.logits(b))[0]!, want([...text]), TOLERANCE);
  });

  for (const when of ['the program is being filled', 'a prompt is being read'] as const) {
    it(`end when the model is disposed of while ${when}`, async () => {
      const before = tensorCount();
      let filling = true;
      const model = await load({
        on_compile: (_, phase) =>
          void (phase === 'load' && queueMicrotask(() => filling && when.includes('filled') && model.dispose())),
      });
      const engine = (await model.engine()) as CompiledEngine;
      const onProgress = (): void => {
        filling = false;
        model.dispose();
      };
      const [a, b] = [await engine.createState(1), await engine.createState(1)];
      const text = Int32Array.from(ids(41, 30));
      const reading = engine.prefill(a, [text], { on_progress: onProgress });
      const waiting = [engine.prefill(b, [text]), engine.decode(b, 3, GREEDY, []), engine.logits(a)];
      for (const call of [reading, ...waiting]) expect(await rejection(call)).to.be.instanceOf(DisposedError);
      expect(filling).to.equal(when.includes('filled'));
      for (const state of [a, b]) state.dispose();
      expect(tensorCount()).to.deep.equal(before);
    });
  }

  it('end when their state is disposed of, and leave nothing of it to the next', async () => {
    const engine = await engineOf();
    const state = await engine.createState(1);
    const text = ids(51, 30);
    const reading = engine.prefill(state, [Int32Array.from(text)], { on_progress: () => state.dispose() });
    const next = kept(await engine.createState(1));
    const after = engine.prefill(next, [Int32Array.from(text)]);
    expect(await rejection(reading))
      .to.be.instanceOf(DisposedError)
      .and.instanceOf(Mamba2Error);
    await after;
    expectClose((await engine.logits(next))[0]!, want(text), TOLERANCE);
  });
});

describe('Turns', () => {
  it('runs work in order, each alone, at once where nothing runs', async () => {
    const turns = new Turns();
    const log: string[] = [];
    const work =
      (name: string, fails = false) =>
      async (): Promise<string> => {
        log.push(`${name} begins`);
        await new Promise((resolve) => setImmediate(resolve));
        log.push(`${name} ends`);
        if (fails) throw new Error(name);
        return name;
      };
    const all = [turns.take(work('a')), turns.take(work('b', true)), turns.take(work('c'))];
    expect(log).to.deep.equal(['a begins']);
    expect((await Promise.allSettled(all)).map(({ status }) => status)).to.deep.equal([
      'fulfilled',
      'rejected',
      'fulfilled',
    ]);
    expect(log).to.deep.equal(['a', 'b', 'c'].flatMap((name) => [`${name} begins`, `${name} ends`]));
    let ran = false;
    const last = turns.take(() => (ran = true));
    expect(ran).to.equal(true);
    await last;
  });
});
