/** Tracing in pieces: what others do between them, and what becomes of a trace that fails or is ended. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { letOthersRun } from '../../../src/base/async.js';
import { DisposedError } from '../../../src/base/errors.js';
import { engineState, PIECE_MS } from '../../../src/base/pieces.js';
import { isTracing, Program, type TracedFunction } from '../../../src/jit/index.js';
import { Mamba2Config } from '../../../src/models/mamba2/config.js';
import { Mamba2ForCausalLM } from '../../../src/models/mamba2/causal_lm.js';
import { tensorCount, useBackend } from '../../support/backends.js';
import { rejection } from '../../support/errors.js';
import { TINY } from '../../support/tiny_model.js';

const LAYERS = 6;

/** Long enough that the next yield gives way. */
function work(): void {
  const end = performance.now() + PIECE_MS + 1;
  while (performance.now() < end);
}

/** x·2^LAYERS + w. @param at called before each layer */
const doubling = (at: (layer: number) => void = () => undefined): TracedFunction =>
  function* ({ x }, { w }) {
    let y = x!;
    for (let i = 0; i < LAYERS; i++) {
      at(i);
      y = tf.tidy(() => tf.mul(y, tf.scalar(2)));
      work();
      yield;
    }
    return { outputs: { y: tf.add(y, w!) } };
  };

function program(fn: TracedFunction): Program {
  const made = new Program({ deferTracing: true, name: 'pieces' });
  made.variable('w', { shape: [2], dtype: 'float32', init: () => Float32Array.of(1, -1) });
  made.define('f', { x: { shape: [2], dtype: 'float32' } }, fn);
  return made;
}

/** What a trace must leave as it was. */
const surroundings = (): unknown => ({
  tensors: tensorCount(),
  scopes: engineState().scopeStack.length,
  depth: engineState().gradientDepth,
  backend: tf.getBackend(),
  tracing: isTracing(),
});

describe('tracing in pieces', function () {
  this.timeout(120_000);
  before(() => useBackend('tensorflow'));

  it('lets others run between layers, and gives what a trace at once gives', async () => {
    const before = surroundings();
    let turns = 0;
    let traced = false;
    const counted = (async () => {
      while (!traced) {
        turns++;
        await letOthersRun();
      }
    })();
    const pieces = program(doubling((layer) => (traced = layer === LAYERS - 1)));
    await pieces.compile();
    await counted;
    expect(turns).to.be.greaterThan(LAYERS - 2);
    const whole = new Program();
    whole.variable('w', { shape: [2], dtype: 'float32' });
    whole.define('f', { x: { shape: [2], dtype: 'float32' } }, doubling());
    whole.compileSync();
    whole.assign('w', Float32Array.of(1, -1));
    for (const one of [pieces, whole])
      expect([...one.callSync('f', { x: [3, 5] })['y']!]).to.deep.equal([3 * 2 ** LAYERS + 1, 5 * 2 ** LAYERS - 1]);
    pieces.dispose();
    whole.dispose();
    expect(surroundings()).to.deep.equal(before);
  });

  it('does not see what others do meanwhile: their ops, scopes, gradients, random numbers and variables', async () => {
    const before = surroundings();
    let rounds = 0;
    let ended = false;
    const variable = tf.tidy(() => tf.variable(tf.tensor1d([0])));
    const kept: tf.Tensor[] = [];
    const others = (async () => {
      while (!ended) {
        expect(isTracing()).to.equal(false);
        expect(tf.getBackend()).to.equal('tensorflow');
        tf.engine().startScope('theirs'); // open while the trace goes on
        const x = tf.tensor1d([rounds + 1, Math.random()]);
        await letOthersRun();
        const y = tf.square(x);
        expect(y.dataSync()[0]).to.equal((rounds + 1) ** 2);
        const slope = tf.grad((z: tf.Tensor) => tf.sum(tf.square(z)))(x);
        expect(slope.dataSync()[0]).to.equal(2 * (rounds + 1));
        variable.assign(tf.tensor1d([rounds]));
        tf.engine().endScope([y]);
        expect(x.isDisposed).to.equal(true);
        kept.push(y);
        rounds++;
      }
    })();
    const made = program(doubling());
    await made.compile();
    ended = true;
    await others;
    expect(rounds).to.be.greaterThan(1);
    expect(kept.map((y) => y.dataSync()[0])).to.deep.equal(kept.map((_, i) => (i + 1) ** 2));
    expect([...made.callSync('f', { x: [1, 2] })['y']!]).to.deep.equal([2 ** LAYERS + 1, 2 ** (LAYERS + 1) - 1]);
    made.dispose();
    tf.dispose([variable, kept]);
    expect(surroundings()).to.deep.equal(before);
  });

  it('leaves no scope and no tensor where it fails, and lets the next one go on', async () => {
    const before = surroundings();
    const wrong = new Error('wrong on purpose');
    const fails = program(
      doubling((layer) => {
        if (layer === 3) throw wrong;
      }),
    );
    const next = program(doubling());
    const [error] = await Promise.all([rejection(fails.compile()), next.compile()]);
    expect(error).to.equal(wrong);
    expect(next.callSync('f', { x: [0, 0] })['y']![0]).to.equal(1);
    next.dispose();
    fails.dispose();
    expect(surroundings()).to.deep.equal(before);
  });

  it('ends where the program is disposed of, and goes no further', async () => {
    const before = surroundings();
    const seen: number[] = [];
    const made = program(doubling((layer) => seen.push(layer)));
    const compiled = rejection(made.compile());
    while (seen.length < 2) await letOthersRun();
    made.dispose();
    expect(await compiled).to.be.instanceOf(DisposedError);
    expect(seen.length).to.be.lessThan(LAYERS);
    expect(surroundings()).to.deep.equal(before);
  });

  it('gives way to a trace at once', async () => {
    const made = program(doubling());
    const compiled = made.compile();
    await letOthersRun();
    const whole = new Program();
    whole.define('g', { x: { shape: [1], dtype: 'float32' } }, ({ x }) => ({ outputs: { y: tf.exp(tf.neg(x!)) } }));
    whole.compileSync();
    expect(whole.callSync('g', { x: [0] })['y']![0]).to.equal(1);
    await compiled;
    expect(made.callSync('f', { x: [1, 1] })['y']![1]).to.equal(2 ** LAYERS - 1);
    made.dispose();
    whole.dispose();
  });

  it('of two models at the same time gives each its own text', async () => {
    const ids = [3, 4, 5, 6, 3]; // not 1, the padding token: generate() masks it, forward() does not
    const models = [7, 11].map((vocab_size) => new Mamba2ForCausalLM(new Mamba2Config({ ...TINY, vocab_size })));
    const text = async (model: Mamba2ForCausalLM): Promise<number[]> =>
      (await model.generate({ input_ids: [ids], max_new_tokens: 12, do_sample: false }))[0]!;
    const together = await Promise.all(models.map(text));
    const alone: number[][] = [];
    for (const model of models) {
      const eager = model.forward({ input_ids: [ids], use_cache: false });
      alone.push(await text(model));
      // the first token is what the layers, run eagerly, choose
      const best = tf.tidy(() => tf.argMax(tf.slice(eager.logits, [0, 4, 0], [1, 1, -1]), 2).dataSync()[0]);
      expect(alone[alone.length - 1]![5]).to.equal(best);
      eager.logits.dispose();
    }
    expect(together).to.deep.equal(alone);
    for (const model of models) model.dispose();
  });
});
