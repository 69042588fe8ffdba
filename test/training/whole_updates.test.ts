/** What others see of a model while a step trains it: the weights before an update or after it, and nothing between. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { DisposedError } from '../../src/base/errors.js';
import { EagerEngine } from '../../src/engine/eager_engine.js';
import { Mamba2ForCausalLM } from '../../src/models/mamba2/causal_lm.js';
import { Mamba2Config } from '../../src/models/mamba2/config.js';
import { prepareBatch } from '../../src/training/batch.js';
import { CompiledStep } from '../../src/training/compiled_step.js';
import { EagerStep } from '../../src/training/eager_step.js';
import { CausalLMTrainer } from '../../src/training/fit.js';
import { trainableOf } from '../../src/training/trainable.js';
import { onBackends, tensorCount } from '../support/backends.js';
import { rejection } from '../support/errors.js';

// an update of so many values takes several pieces
const model = (num_hidden_layers = 4): Mamba2ForCausalLM =>
  new Mamba2ForCausalLM(
    new Mamba2Config({
      vocab_size: 64,
      hidden_size: 64,
      num_hidden_layers,
      head_dim: 16,
      num_heads: 8,
      state_size: 16,
      chunk_size: 16,
      n_groups: 1,
    }),
  );
const ids = [[3, 4, 5, 6, 7, 8]];

/** Looks at variables whenever the event loop runs, until stop() says how many it has seen changed, each time. */
function watch(variables: readonly tf.Variable[]): { stop: () => number[] } {
  const before = variables.map(({ dataId }) => dataId);
  const seen: number[] = [];
  let ended = false;
  const look = (): void => {
    seen.push(variables.filter(({ dataId }, i) => dataId !== before[i]).length);
    if (!ended) setImmediate(look);
  };
  setImmediate(look);
  return {
    stop: () => {
      ended = true;
      return seen;
    },
  };
}

onBackends(['cpu'], 'an eager update', () => {
  it('changes all variables in one piece', async () => {
    const m = model();
    const target = trainableOf(m);
    const step = new EagerStep(target);
    const variables = [...target.trainable().values()];
    const watched = watch(variables);
    await step.step([prepareBatch({ input_ids: ids, labels: ids }, 64)], 1e-2, 0);
    await new Promise((resolve) => setImmediate(resolve));
    expect([...new Set(watched.stop())]).to.deep.equal([0, variables.length]);
    step.dispose();
    m.dispose();
  });

  const prompt = Int32Array.from({ length: 48 }, (_, i) => 3 + (i % 60));
  const logitsOf = async (engine: EagerEngine): Promise<string> => {
    const state = await engine.createState(1);
    await engine.prefill(state, [prompt]);
    const [row] = await engine.logits(state);
    state.dispose();
    return row!.join();
  };

  /** Trains while an engine reads the prompt over and over: each time by the weights before, or by those after. */
  async function readsMeanwhile(m: Mamba2ForCausalLM, train: () => Promise<unknown>): Promise<void> {
    const engine = new EagerEngine(m.weights);
    const before = await logitsOf(engine);
    const read: string[] = [];
    let ended = false;
    const reading = (async (): Promise<void> => {
      while (!ended) read.push(await logitsOf(engine));
    })();
    await train();
    ended = true;
    await reading;
    const after = await logitsOf(engine);
    expect(after).to.not.equal(before);
    for (const logits of read) expect([before, after]).to.include(logits);
    expect(read).to.include(before);
  }

  it('does not come while a prompt is read', async () => {
    const m = model();
    const step = new EagerStep(trainableOf(m));
    await readsMeanwhile(m, () => step.step([prepareBatch({ input_ids: ids, labels: ids }, 64)], 1e-2, 0));
    step.dispose();
    m.dispose();
  });

  it("does not come while a prompt is read, when it is another optimizer's", async () => {
    const m = model();
    const fitting = new CausalLMTrainer(m);
    fitting.compile({ optimizer: tf.train.sgd(0.5) });
    await readsMeanwhile(m, () => fitting.trainOnBatch({ input_ids: ids, labels: ids }));
    fitting.dispose();
    m.dispose();
  });

  it('is none when the step is disposed of before its end, and leaves nothing', async () => {
    const m = model();
    const target = trainableOf(m);
    const variables = [...target.trainable().values()];
    const ended = tensorCount();
    const step = new EagerStep(target);
    let release!: () => void;
    void m.weights.turns.take(() => new Promise<void>((resolve) => (release = resolve)));
    const watched = watch(variables);
    const work = rejection(step.step([prepareBatch({ input_ids: ids, labels: ids }, 64)], 1e-2, 0));
    // all is computed, or most of it, and the update waits for who reads
    await new Promise((resolve) => setTimeout(resolve, 500));
    step.dispose();
    release();
    expect(await work).to.be.instanceOf(DisposedError);
    expect(new Set(watched.stop())).to.deep.equal(new Set([0]));
    expect(tensorCount()).to.deep.equal(ended);
    m.dispose();
  });
});

onBackends(['tensorflow'], 'sync() of a compiled step', () => {
  it('changes all variables in one piece, with the event loop free before it, and gives what syncNow() gives', async () => {
    const m = model(1);
    const target = trainableOf(m);
    const step = new CompiledStep(target, { xla: false });
    const variables = [...target.trainable().values()];
    const batch = prepareBatch({ input_ids: ids, labels: ids }, 64);
    await step.step([batch], 1e-2, 0);
    const watched = watch(variables);
    await step.sync();
    await new Promise((resolve) => setImmediate(resolve));
    const seen = watched.stop();
    expect([...new Set(seen)]).to.deep.equal([0, variables.length]);
    const synced = variables.map((variable) => variable.dataSync().slice());
    await step.step([batch], 0, 0);
    step.syncNow();
    variables.forEach((variable, i) => expect(variable.dataSync()).to.deep.equal(synced[i]));
    // and back: what the program trains from is what the model has
    variables.forEach((variable) => tf.tidy(() => variable.assign(tf.zerosLike(variable))));
    await step.refresh();
    expect(await step.evaluate(batch)).to.be.closeTo(batch.items * Math.log(64), 1e-4);
    step.dispose();
    m.dispose();
  });
});
