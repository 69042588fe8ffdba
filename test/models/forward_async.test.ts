/** forwardAsync() against forward(): the same numbers, in pieces. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { ArgumentError, DisposedError } from '../../src/base/errors.js';
import { Mamba2ForCausalLM } from '../../src/models/mamba2/causal_lm.js';
import { Mamba2Config } from '../../src/models/mamba2/config.js';
import { onBackends, tensorCount } from '../support/backends.js';
import { rejection } from '../support/errors.js';
import { TINY } from '../support/tiny_model.js';

onBackends(['tensorflow', 'cpu'], 'forwardAsync()', () => {
  const model = (): Mamba2ForCausalLM => new Mamba2ForCausalLM(new Mamba2Config(TINY));

  it('gives what forward() gives, for padded rows, with labels, hidden states and a cache', async () => {
    const m = model();
    const rows = {
      input_ids: [
        [0, 3, 1, 4],
        [1, 5, 9, 2],
      ],
      attention_mask: [
        [0, 1, 1, 1],
        [1, 1, 1, 1],
      ],
      output_hidden_states: true,
    };
    const next = { input_ids: [[6], [7]], labels: [[6], [7]] };
    tf.dispose(m.forward({ input_ids: [[1]], use_cache: false }).logits); // the backend has the weights from here on
    const before = tensorCount();
    const once = m.forward(rows);
    const pieces = await m.forwardAsync(rows);
    const same = (a: tf.Tensor, b: tf.Tensor): void => {
      expect(b.shape).to.deep.equal(a.shape);
      expect(b.dataSync()).to.deep.equal(a.dataSync());
    };
    same(once.logits, pieces.logits);
    expect(pieces.hidden_states).to.have.length(once.hidden_states!.length);
    once.hidden_states!.forEach((h, i) => same(h, pieces.hidden_states![i]!));
    const labels = { ...rows, labels: rows.input_ids, use_cache: false, output_hidden_states: false };
    const [a, b] = [m.forward(labels), await m.forwardAsync(labels)];
    same(a.loss!, b.loss!);
    expect(b.cache).to.equal(undefined);
    const on = { input_ids: next.input_ids };
    const [c, d] = [m.forward({ ...on, cache: once.cache! }), await m.forwardAsync({ ...on, cache: pieces.cache! })];
    same(c.logits, d.logits);
    expect(d.cache).to.equal(pieces.cache);
    for (const out of [once, pieces, a, b, c, d]) {
      tf.dispose([out.logits, out.hidden_states ?? [], out.loss ?? []]);
      out.cache?.dispose();
    }
    expect(tensorCount()).to.deep.equal(before);
    m.dispose();
  });

  it('refuses what forward() refuses, and says when the model is gone, leaving nothing', async () => {
    const m = model();
    tf.dispose(m.forward({ input_ids: [[1]], use_cache: false }).logits); // the backend has the weights from here on
    const before = tensorCount();
    expect(await rejection(m.forwardAsync({ input_ids: [[99]] }))).to.be.instanceOf(ArgumentError);
    let release!: () => void;
    void m.weights.turns.take(() => new Promise<void>((resolve) => (release = resolve)));
    const { cache, logits } = m.forward({ input_ids: [[1, 2]] });
    logits.dispose();
    const late = rejection(m.forwardAsync({ input_ids: [[3]], cache }));
    cache!.dispose();
    release();
    expect(await late).to.be.instanceOf(DisposedError);
    expect(tensorCount()).to.deep.equal(before);
    const gone = rejection(m.forwardAsync({ input_ids: [[3]] }));
    m.dispose();
    expect(await gone).to.be.instanceOf(DisposedError);
  });
});
