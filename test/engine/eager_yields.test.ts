import { expect } from 'chai';
import { DisposedError } from '../../src/base/errors.js';
import type { EagerEngine } from '../../src/engine/eager_engine.js';
import { Mamba2Config } from '../../src/models/mamba2/config.js';
import { Mamba2ForCausalLM } from '../../src/models/mamba2/causal_lm.js';
import { onBackends, tensorCount } from '../support/backends.js';

onBackends(['cpu'], 'an eager engine', () => {
  const model = (): Mamba2ForCausalLM =>
    new Mamba2ForCausalLM(
      new Mamba2Config({
        vocab_size: 64,
        hidden_size: 32,
        num_hidden_layers: 6,
        head_dim: 16,
        num_heads: 4,
        state_size: 16,
        chunk_size: 16,
        n_groups: 1,
      }),
    );
  const prompt = Int32Array.from({ length: 48 }, (_, i) => 3 + (i % 60));

  it('lets the event loop run between layers', async () => {
    const m = model();
    const engine = (await m.engine()) as EagerEngine;
    const state = await engine.createState(1);
    await engine.prefill(state, [prompt.subarray(0, 4)]);
    let [longest, last, ended] = [0, performance.now(), false];
    const tick = (): void => {
      longest = Math.max(longest, performance.now() - last);
      last = performance.now();
      if (!ended) setImmediate(tick);
    };
    const began = performance.now();
    setImmediate(tick);
    await engine.prefill(state, [prompt]);
    ended = true;
    const ms = performance.now() - began;
    expect(ms).to.be.greaterThan(60);
    expect(longest).to.be.lessThan(ms / 2);
    m.dispose();
  });

  it('takes calls on one state in turn, and others side by side', async () => {
    const m = model();
    const engine = (await m.engine()) as EagerEngine;
    const [alone, together, other] = [
      await engine.createState(1),
      await engine.createState(1),
      await engine.createState(1),
    ];
    await engine.prefill(alone, [prompt]);
    await engine.step(alone, Int32Array.of(5));
    await engine.step(alone, Int32Array.of(6));
    await Promise.all([
      engine.prefill(together, [prompt]),
      engine.step(together, Int32Array.of(5)),
      engine.prefill(other, [prompt]),
      engine.step(together, Int32Array.of(6)),
      engine.step(other, Int32Array.of(5)),
      engine.step(other, Int32Array.of(6)),
    ]);
    const [expected] = await engine.logits(alone);
    for (const state of [together, other]) expect((await engine.logits(state))[0]).to.deep.equal(expected);
    m.dispose();
  });

  it('disposed of in the middle, or whose state was, says so and leaves nothing', async () => {
    const m = model();
    const engine = (await m.engine()) as EagerEngine;
    m.weights.all();
    const before = tensorCount();
    const state = await engine.createState(1);
    const read = engine.prefill(state, [prompt]).catch((error: unknown) => error);
    setImmediate(() => state.dispose());
    expect(await read).to.be.instanceOf(DisposedError);
    expect(tensorCount()).to.deep.equal(before);
    const another = await engine.createState(1);
    const second = engine.prefill(another, [prompt]).catch((error: unknown) => error);
    setImmediate(() => m.dispose());
    expect(await second).to.be.instanceOf(DisposedError);
    another.dispose();
  });
});
