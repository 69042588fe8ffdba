/** What forward() takes, and what it refuses. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { ArgumentError, DisposedError } from '../../src/base/errors.js';
import { idGrid, type IdsLike, readMask, reorder } from '../../src/engine/inputs.js';
import { Mamba2Cache } from '../../src/models/mamba2/cache.js';
import { Mamba2Config } from '../../src/models/mamba2/config.js';
import type { CausalLMInputs } from '../../src/models/mamba2/causal_lm.js';
import { causalLoss, shiftLabels } from '../../src/models/loss.js';
import { onBackends, useBackend } from '../support/backends.js';
import { expectClose } from '../support/compare.js';
import { thrown } from '../support/errors.js';
import * as oracle from '../support/oracle.js';
import { lcg } from '../support/random.js';
import { randomIds, tinyModel, type TinyModel } from '../support/tiny_model.js';

describe('ids and masks', () => {
  before(() => useBackend('cpu'));

  it('come as rows, one row, typed arrays or tensors', () => {
    const forms: IdsLike[] = [
      [
        [1, 2],
        [3, 4],
      ],
      [Int32Array.of(1, 2), Int32Array.of(3, 4)],
    ];
    for (const form of forms)
      expect(idGrid(form, 5)).to.deep.equal({ batch: 2, length: 2, values: Int32Array.of(1, 2, 3, 4) });
    for (const row of [[1, 2, 3], Int32Array.of(1, 2, 3)])
      expect(idGrid(row, 5)).to.deep.equal({ batch: 1, length: 3, values: Int32Array.of(1, 2, 3) });
    for (const dtype of ['int32', 'float32'] as const) {
      tf.tidy(() => {
        expect(
          idGrid(
            tf.tensor2d(
              [
                [1, 2],
                [3, 4],
              ],
              [2, 2],
              dtype,
            ),
            5,
          ).values,
        ).to.deep.equal(Int32Array.of(1, 2, 3, 4));
        expect(idGrid(tf.tensor1d([1, 2], dtype), 5)).to.deep.equal({
          batch: 1,
          length: 2,
          values: Int32Array.of(1, 2),
        });
      });
    }
  });

  it('give a compacted order, and the way back', () => {
    expect(readMask(undefined, 2, 3)).to.equal(null);
    expect(readMask([[1, 1, 1]], 1, 3)).to.equal(null);
    expect(readMask([[1, 1, 0]], 1, 3)).to.deep.equal({
      mask: Float32Array.of(1, 1, 0),
      lengths: [2],
      order: null,
      back: null,
    });
    const gaps = readMask(
      [
        [0, 1, 0, 1],
        [1, 1, 1, 1],
      ],
      2,
      4,
    )!;
    expect(gaps.mask).to.deep.equal(Float32Array.of(1, 1, 0, 0, 1, 1, 1, 1));
    expect(gaps.lengths).to.deep.equal([2, 4]);
    expect(gaps.order).to.deep.equal(Int32Array.of(1, 3, 0, 2, 4, 5, 6, 7));
    tf.tidy(() => {
      const x = tf.reshape(tf.range(0, 8, 1, 'float32'), [2, 4, 1]) as tf.Tensor3D;
      const there = reorder(x, gaps.order!);
      expect([...there.dataSync()]).to.deep.equal([1, 3, 0, 2, 4, 5, 6, 7]);
      expect([...reorder(there, gaps.back!).dataSync()]).to.deep.equal([0, 1, 2, 3, 4, 5, 6, 7]);
    });
  });

  it('take the last columns of a mask over the whole history', () => {
    expect(readMask([[0, 0, 1, 1, 0]], 1, 2)!.mask).to.deep.equal(Float32Array.of(1, 0));
  });
});

describe('forward refuses', () => {
  let tiny: TinyModel;
  before(async () => {
    await useBackend('cpu');
    tiny = tinyModel();
  });
  after(() => tiny.model.dispose());

  const cases: { title: string; inputs: () => CausalLMInputs; says: string[] }[] = [
    { title: 'neither ids nor embeddings', inputs: () => ({}), says: ['neither', 'input_ids', 'inputs_embeds'] },
    { title: 'both', inputs: () => ({ input_ids: [[1]], inputs_embeds: tf.ones([1, 1, 6]) }), says: ['both'] },
    {
      title: 'ragged rows',
      inputs: () => ({ input_ids: [[1, 2], [3]] }),
      says: ['input_ids', 'row 1', '1 entries', 'attention_mask'],
    },
    { title: 'no rows', inputs: () => ({ input_ids: [] }), says: ['input_ids', 'empty'] },
    { title: 'an empty row', inputs: () => ({ input_ids: [[]] }), says: ['input_ids', 'empty'] },
    {
      title: 'an id beyond the vocabulary',
      inputs: () => ({
        input_ids: [
          [1, 2],
          [3, 11],
        ],
      }),
      says: ['input_ids', 'Row 1', 'holds 11 at position 1', 'ids from 0 to 10'],
    },
    { title: 'a negative id', inputs: () => ({ input_ids: [[-1]] }), says: ['Row 0', 'holds -1 at position 0'] },
    { title: 'half an id', inputs: () => ({ input_ids: [[1.5]] }), says: ['holds 1.5 at position 0'] },
    { title: 'an id beyond int32', inputs: () => ({ input_ids: [[2 ** 32 + 1]] }), says: [String(2 ** 32 + 1)] },
    {
      title: 'ids in a tensor of rank 3',
      inputs: () => ({ input_ids: tf.zeros([1, 2, 3], 'int32') }),
      says: ['[1,2,3]', '[b, t]'],
    },
    {
      title: 'a mask of other rows',
      inputs: () => ({
        input_ids: [[1, 2]],
        attention_mask: [
          [1, 1],
          [1, 1],
        ],
      }),
      says: ['attention_mask', '[2, 2]', '[1, 2]'],
    },
    {
      title: 'a short mask',
      inputs: () => ({ input_ids: [[1, 2]], attention_mask: [[1]] }),
      says: ['attention_mask', '[1, 1]'],
    },
    {
      title: 'a mask of 2',
      inputs: () => ({ input_ids: [[1, 2]], attention_mask: [[1, 2]] }),
      says: ['attention_mask', '[0, 1]', '0 or 1'],
    },
    {
      title: 'embeddings of another width',
      inputs: () => ({ inputs_embeds: tf.ones([1, 2, 5]) }),
      says: ['inputs_embeds', '[1,2,5]', '[b, t, 6]'],
    },
    {
      title: 'embeddings of no tokens',
      inputs: () => ({ inputs_embeds: tf.zeros([1, 0, 6]) }),
      says: ['inputs_embeds'],
    },
    {
      title: 'labels of another size',
      inputs: () => ({ input_ids: [[1, 2]], labels: [[1, 2, 3]] }),
      says: ['labels', '[1, 3]', '[1, 2]'],
    },
    {
      title: 'labels beyond the vocabulary',
      inputs: () => ({ input_ids: [[1, 2]], labels: [[1, 11]] }),
      says: ['labels', '11', '[0, 1]'],
    },
    {
      title: 'a negative label that is not -100',
      inputs: () => ({ input_ids: [[1, 2]], labels: [[1, -1]] }),
      says: ['labels', '-1', '-100'],
    },
    {
      title: 'labels with logits_to_keep',
      inputs: () => ({ input_ids: [[1, 2]], labels: [[1, 2]], logits_to_keep: 1 }),
      says: ['logits_to_keep'],
    },
    {
      title: 'a negative logits_to_keep',
      inputs: () => ({ input_ids: [[1, 2]], logits_to_keep: -1 }),
      says: ['logits_to_keep', '-1'],
    },
  ];
  for (const { title, inputs, says } of cases) {
    it(title, () => {
      const start = tf.memory().numTensors;
      const given = inputs();
      const error = thrown(() => tiny.model.forward(given));
      expect(error).to.be.instanceOf(ArgumentError);
      for (const part of says) expect(error.message).to.contain(part);
      tf.dispose([given.inputs_embeds, given.input_ids].filter((x) => x instanceof tf.Tensor));
      expect(tf.memory().numTensors, 'tensors left by the failure').to.equal(start);
    });
  }

  it('a cache of another batch, and leaves that cache as it was', () => {
    const start = tf.memory().numTensors;
    const cache = Mamba2Cache.zeros(tiny.model.config, 2);
    expect(thrown(() => tiny.model.forward({ input_ids: [[1]], cache })))
      .to.be.instanceOf(ArgumentError)
      .with.property('message')
      .that.contains('2 rows');
    expect(cache.seen_tokens).to.equal(0);
    tiny.model.forward({ input_ids: [[1], [2]], cache }).logits.dispose();
    cache.dispose();
    expect(thrown(() => tiny.model.forward({ input_ids: [[1], [2]], cache }))).to.be.instanceOf(DisposedError);
    expect(tf.memory().numTensors).to.equal(start);
  });

  it('a cache of another model, and leaves that cache as it was', () => {
    const start = tf.memory().numTensors;
    const { config } = tiny.model;
    const others = [{ num_hidden_layers: config.num_hidden_layers + 1 }, { state_size: 2 * config.state_size }];
    for (const change of others) {
      const cache = Mamba2Cache.zeros(new Mamba2Config({ ...config.to_dict(), ...change }), 1);
      const layers = cache.layers.length;
      expect(thrown(() => tiny.model.forward({ input_ids: [[1]], cache })))
        .to.be.instanceOf(ArgumentError)
        .with.property('message')
        .that.contains('the model');
      expect(cache.layers.length).to.equal(layers);
      cache.dispose();
    }
    expect(tf.memory().numTensors).to.equal(start);
  });

  it('anything after dispose', () => {
    const other = tinyModel().model;
    other.dispose();
    other.dispose();
    expect(thrown(() => other.forward({ input_ids: [[1]] }))).to.be.instanceOf(DisposedError);
    expect(thrown(() => other.layersModel)).to.be.instanceOf(DisposedError);
  });
});

onBackends(['tensorflow', 'wasm', 'cpu'], 'loss', () => {
  it("is the oracle's, with its gradient, and leaves out -100", () => {
    const random = lcg(41);
    const logits = oracle.randomArr(random, [2, 5, 7], -4, 4);
    const labels = [
      [3, -100, 0, 6, 2],
      [-100, 1, 1, -100, 5],
    ];
    const shifted = shiftLabels(Int32Array.from(labels.flat()), 2, 5, 7);
    expect(shifted.kept).to.equal(6);
    tf.tidy(() => {
      const { value, grad } = tf.valueAndGrad((x: tf.Tensor) => causalLoss(x as tf.Tensor3D, shifted))(
        oracle.toTensor(logits),
      );
      expectClose(value, [oracle.causalLoss(logits, labels)], 1e-5);
      expectClose(grad, oracle.numericGradient(logits, () => oracle.causalLoss(logits, labels)).data, 1e-5);
      const half = causalLoss(oracle.toTensor(logits) as tf.Tensor3D, shifted, 12);
      expectClose(half, [oracle.causalLoss(logits, labels) / 2], 1e-5, 'divided by the items given');
    });
  });

  it('is exact for logits of any size', () => {
    tf.tidy(() => {
      const shifted = shiftLabels(Int32Array.of(0, 1, 0), 1, 3, 2);
      const logits = tf.tensor3d([1000, -1000, 1000, -1000, 0, 0], [1, 3, 2]);
      const { value, grad } = tf.valueAndGrad((x: tf.Tensor) => causalLoss(x as tf.Tensor3D, shifted))(logits);
      expectClose(value, [1000], 0);
      expectClose(grad, [0.5, -0.5, 0, 0, 0, 0], 1e-7);
    });
  });

  it('is NaN when nothing is kept', () => {
    tf.tidy(() => {
      const loss = causalLoss(tf.ones([1, 2, 3]), shiftLabels(Int32Array.of(1, -100), 1, 2, 3));
      expect(loss.dataSync()[0]).to.be.NaN;
    });
  });

  it('comes with the logits of a model, padded rows too', () => {
    const tiny = tinyModel();
    const ids = randomIds(lcg(42), 1, 6, 11);
    const want = oracle.causalLoss(oracle.stack([tiny.oracle(ids[0]!).logits]), ids);
    const padded = [0, 0, ...ids[0]!];
    tf.tidy(() => {
      expectClose(tiny.model.forward({ input_ids: ids, labels: ids, use_cache: false }).loss!, [want], 1e-5);
      const { loss } = tiny.model.forward({
        input_ids: [padded],
        attention_mask: [[0, 0, 1, 1, 1, 1, 1, 1]],
        labels: [[-100, -100, -100, ...ids[0]!.slice(1)]],
        use_cache: false,
      });
      expectClose(loss!, [want], 1e-5, 'padded');
    });
    tiny.model.dispose();
  });
});
