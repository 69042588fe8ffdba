/** compile, fit, evaluate and predict with tfjs' own optimizers and callbacks. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { loadCheckpoint } from '../../src/models/mamba2/pretrained.js';
import { Mamba2Config, Mamba2ForCausalLM } from '../../src/models/mamba2/index.js';
import { ArgumentError } from '../../src/base/errors.js';
import { AdamW, CausalLMTrainer, Dataset } from '../../src/training/index.js';
import { tensorCount, useBackend } from '../support/backends.js';
import { LEARNER } from '../support/tiny_model.js';
import { expectClose, expectTensor } from '../support/compare.js';
import { loadGolden } from '../support/goldens.js';

const tiny = (): Mamba2ForCausalLM => new Mamba2ForCausalLM(new Mamba2Config(LEARNER));
const examples = Array.from({ length: 12 }, (_, i) => ({
  input_ids: Array.from({ length: 5 + (i % 3) }, (_, j) => (i * 3 + j) % 31),
}));
const step = { engine: 'eager' } as const;

describe('compile and fit', () => {
  let model: Mamba2ForCausalLM;
  let trainer: CausalLMTrainer;
  before(() => useBackend('tensorflow'));
  beforeEach(() => {
    model = tiny();
    trainer = new CausalLMTrainer(model);
  });
  afterEach(() => {
    trainer.dispose();
    model.dispose();
  });

  it('generates from the weights as they are after fit(), with either engine', async () => {
    for (const engine of ['eager', 'compiled'] as const) {
      const own = new Mamba2ForCausalLM(
        model.config,
        null,
        engine === 'eager' ? { engine } : { engine, segments: [4] },
      );
      const learner = new CausalLMTrainer(own);
      // no special ids: the id of padding, 1, would be masked as padding
      const text = [4, 5, 6, 7, 8, 9, 7, 8, 9];
      const write = async (): Promise<number[]> => {
        const rows = await own.generate({ input_ids: [[4, 5, 6]], max_new_tokens: 6, do_sample: false });
        return rows[0]!;
      };
      await write(); // the engine has the weights of before
      learner.compile({ optimizer: new AdamW({ learningRate: 0.05 }), step });
      await learner.fit(
        Array.from({ length: 8 }, () => ({ input_ids: text })),
        { epochs: 20 },
      );
      expect(await write(), engine).to.deep.equal(text);
      learner.dispose();
      own.dispose();
    }
  });

  for (const [name, optimizer] of [
    ['AdamW', () => new AdamW({ learningRate: 1e-2 })],
    ['tf.train.adam', () => tf.train.adam(1e-2)],
    ['tf.train.sgd', () => tf.train.sgd(0.1)],
  ] as const) {
    it(`lowers the loss with ${name}, and gives a History`, async () => {
      trainer.compile({ optimizer: optimizer(), loss: 'causal_lm', metrics: ['accuracy', 'perplexity'], step });
      const before = await trainer.evaluate(examples);
      const { history } = await trainer.fit(examples, { epochs: 6, batchSize: 4, validationData: examples });
      expect(history['loss']).to.have.length(6);
      const after = await trainer.evaluate(examples);
      expect(history['val_loss']![5]).to.be.closeTo(after.loss, 1e-6);
      expect(after.loss).to.be.below(before.loss * 0.95);
      expect(after.accuracy).to.be.within(0, 1);
      expect(after.perplexity).to.be.closeTo(Math.exp(after.loss), 1e-6);
    });
  }

  // the golden gradients are torch's
  for (const engine of ['eager', 'compiled'] as const) {
    it(`gives other optimizers of tfjs the gradients, and evaluates what they made (${engine})`, async () => {
      const golden = loadGolden('gradients/g1');
      const { config, source } = await loadCheckpoint(golden.dir);
      const other = new Mamba2ForCausalLM(config, source);
      const { input_ids, labels } = golden.inputs as { input_ids: number[][]; labels: number[][] };
      const batch = { input_ids, labels };
      const loss = (): number => tf.tidy(() => other.forward({ ...batch, use_cache: false }).loss!.dataSync()[0]!);
      const rows = batch.input_ids.map((input_ids, i) => ({ input_ids, labels: batch.labels[i]! }));
      const keras = new CausalLMTrainer(other);
      keras.compile({ optimizer: tf.train.sgd(0.1), step: { engine, xla: false } });
      const before = await keras.evaluate(rows, { batchSize: rows.length });
      expectClose([before.loss], [loss()], 1e-5, 'before');
      const weights = Object.entries(other.weights.all()) as [string, tf.Variable][];
      const old = new Map(weights.map(([name, v]) => [name, v.dataSync().slice()]));
      expectClose([await keras.trainOnBatch(batch)], golden.tensor('loss').data, 1e-5, 'loss');
      for (const [name, v] of weights) {
        const gradient = golden.tensor(`grad.${name}`);
        const moved = tf.tidy(() => tf.div(tf.sub(tf.tensor(old.get(name)!, v.shape), v), 0.1));
        expectTensor(moved, gradient, 1e-3, name);
        moved.dispose();
      }
      const after = await keras.evaluate(rows, { batchSize: rows.length });
      expectClose([after.loss], [loss()], 1e-5, 'after');
      expect(after.loss).to.be.below(before.loss - 1e-3);
      keras.dispose();
      other.dispose();
    });
  }

  it('lets an AdamW’s own rule say which tensors decay', async () => {
    const norm = model.weights.all()['backbone.norm_f.weight'] as tf.Variable;
    const matrix = model.weights.all()['backbone.embeddings.weight'] as tf.Variable;
    const [a, b] = [norm.dataSync().slice(), matrix.dataSync().slice()];
    const decays = (name: string): boolean => name === 'backbone.norm_f.weight';
    // epsilon this large leaves of the update the decay alone
    trainer.compile({ optimizer: new AdamW({ learningRate: 0.5, weightDecay: 0.5, epsilon: 1e30, decays }), step });
    await trainer.trainOnBatch({ input_ids: [[1, 2, 3]], labels: [[1, 2, 3]] });
    expectClose(
      norm.dataSync(),
      a.map((w) => w * 0.75),
      1e-6,
    );
    expectClose(matrix.dataSync(), b, 1e-6);
  });

  it('evaluates to the mean of the model’s own loss', async () => {
    trainer.compile({ step });
    const rows = examples.filter((e) => e.input_ids.length === 5).map((e) => e.input_ids);
    const want = tf.tidy(() => model.forward({ input_ids: rows, labels: rows, use_cache: false }).loss!.dataSync()[0]!);
    expectClose([(await trainer.evaluate(rows.map((input_ids) => ({ input_ids })))).loss], [want], 1e-5);
  });

  it('serves tfjs callbacks: hooks in order, earlyStopping ends the run', async () => {
    trainer.compile({ optimizer: tf.train.sgd(0), step });
    const seen: string[] = [];
    const hooks = {
      onTrainBegin: async () => void seen.push('begin'),
      onEpochEnd: async (e: number) => void seen.push(`epoch ${e}`),
      onTrainEnd: async () => void seen.push('end'),
    };
    const { history } = await trainer.fit(examples, {
      epochs: 9,
      callbacks: [hooks, tf.callbacks.earlyStopping({ monitor: 'loss', patience: 1, minDelta: 1e-3 })],
    });
    expect(history['loss']!.length).to.be.below(9);
    expect(seen).to.deep.equal(['begin', ...history['loss']!.map((_, i) => `epoch ${i}`), 'end']);
  });

  it('takes batches from a dataset, and predicts logits', async () => {
    trainer.compile({ optimizer: new AdamW({ learningRate: 1e-2 }), step });
    const row = [1, 2, 3, 4, 5, 6];
    const { history } = await trainer.fitDataset(
      async function* () {
        for (let i = 0; i < 3; i++) yield { input_ids: [row, row], labels: [row, row] };
      },
      { epochs: 2 },
    );
    expect(history['loss']![1]).to.be.below(history['loss']![0] as number);
    const logits = trainer.predict([row]);
    expect(logits.shape).to.deep.equal([1, 6, 31]);
    logits.dispose();
  });

  it('takes a tf.data.Dataset, batched by it or by its maker, and disposes of its tensors', async () => {
    const rows = examples.filter((e) => e.input_ids.length === 6).map(({ input_ids }) => input_ids);
    const elements = rows.map((row) => ({ input_ids: row, labels: row }));
    const found: unknown[] = [];
    for (const dataset of [
      tf.data.array(elements).batch(2),
      tf.data.generator(function* () {
        for (let i = 0; i < rows.length; i += 2)
          yield { input_ids: rows.slice(i, i + 2), labels: rows.slice(i, i + 2) };
      } as never),
      async function* () {
        for (let i = 0; i < rows.length; i += 2)
          yield { input_ids: rows.slice(i, i + 2), labels: rows.slice(i, i + 2) };
      },
    ]) {
      const own = tiny();
      const weights = model.weights.all() as Record<string, tf.Variable>;
      for (const [name, v] of Object.entries(own.weights.all())) (v as tf.Variable).assign(weights[name]!);
      const learner = new CausalLMTrainer(own);
      learner.compile({ optimizer: new AdamW({ learningRate: 1e-2 }), step });
      const before = tensorCount().tf;
      found.push((await learner.fitDataset(dataset, { epochs: 2 })).history['loss']);
      expect(tensorCount().tf).to.equal(before);
      learner.dispose();
      own.dispose();
    }
    expect(found[2]).to.have.length(2);
    expect(found[0]).to.deep.equal(found[2]);
    expect(found[1]).to.deep.equal(found[2]);
  });

  it('refuses data without a batch, and without a position that counts', async () => {
    trainer.compile({ step });
    const messageOf = (run: Promise<unknown>): Promise<string> =>
      run.then(
        () => '',
        (error: Error) => error.message,
      );
    const row = [1, 2, 3];
    const once = (async function* () {
      yield await Promise.resolve({ input_ids: [row], labels: [row] });
    })();
    expect(await messageOf(trainer.fitDataset(once, { epochs: 2 }))).to.match(/epoch 2 got no batch/);
    expect(await messageOf(trainer.fitDataset(tf.data.array([{ input_ids: row, labels: row }])))).to.match(
      /input_ids that are no rows.*has batch\(\) been called/,
    );
    expect(await messageOf(trainer.fitDataset(tf.data.array([{ xs: row, ys: row }]).batch(1)))).to.match(
      /no input_ids \(its keys: xs, ys\)/,
    );
    expect(await messageOf(trainer.evaluate([{ input_ids: [1] }]))).to.match(/none of the 1 examples has a position/);
  });

  it('takes optimizers and the loss by the names of tfjs and Keras', async () => {
    for (const optimizer of ['adam', 'adamw', 'sgd', 'rmsprop', 'adagrad', 'adadelta', 'adamax'] as const) {
      trainer.compile({ optimizer, loss: 'sparseCategoricalCrossentropy', step: { engine: 'eager' } });
      const { history } = await trainer.fit(examples, { epochs: 2 });
      expect(history['loss'], optimizer).to.have.length(2);
      expect(history['loss']![1], optimizer).to.be.below(history['loss']![0] as number);
    }
  });

  it('takes rows of ids, a tensor of them, a Dataset and streams', async () => {
    trainer.compile({ optimizer: tf.train.sgd(0), step: { engine: 'eager' } });
    const rows = [[1, 2, 3, 4], [5, 6, 7, 8]]; // prettier-ignore
    const ids = tf.tensor2d(rows, [2, 4], 'int32');
    const batch = { input_ids: rows, labels: rows };
    const losses: unknown[] = [];
    for (const data of [
      rows,
      rows.map((row) => Int32Array.from(row)),
      rows.map((input_ids) => ({ input_ids })),
      ids,
      new Dataset(rows.map((input_ids) => ({ input_ids }))),
      async function* () {
        yield Promise.resolve(batch);
      },
    ] as const) {
      const { history } = await trainer.fit(data, { shuffle: false });
      losses.push((history['loss'] as number[])[0]!);
      if (typeof data !== 'function')
        expect((await trainer.evaluate(data)).loss).to.be.closeTo(losses[0] as number, 1e-5);
    }
    for (const loss of losses) expect(loss).to.be.closeTo(losses[0] as number, 1e-5);
    ids.dispose();
  });

  it('refuses what it does not know, by name', async () => {
    for (const [args, message] of [
      [
        { optimizer: 'adamm' },
        /optimizer is "adamm"; expected an optimizer: new AdamW\(\), one of tf.train, or its name: adamw/,
      ],
      [{ optimizer: {} }, /expected an optimizer/],
      [{ loss: 'meanSquaredError' }, /expected 'causal_lm' or 'sparseCategoricalCrossentropy'/],
      [{ metrics: ['f1'] }, /metrics/],
      [{ optimiser: 'adam' }, /Did you mean optimizer/],
      [{ learning_rate: 1 }, /an option of the optimizer/],
      [{ step: { gradient_checkpointing: true } }, /It is called gradientCheckpointing here/],
    ] as const)
      expect(() => trainer.compile(args as object)).to.throw(ArgumentError, message);
    trainer.compile({ step: { engine: 'eager' } });
    const fails = async (call: Promise<unknown>, message: RegExp): Promise<void> => {
      const error = await call.then(
        () => null,
        (e: unknown) => e as Error,
      );
      expect(error, String(message)).to.be.instanceOf(ArgumentError);
      expect(error!.message).to.match(message);
    };
    for (const [args, message] of [
      [{ batch_size: 4 }, /It is called batchSize here/],
      [{ epoch: 4 }, /Did you mean epochs/],
      [{ validation_data: examples }, /It is called validationData here/],
      [{ validationSplit: 0.1 }, /split the examples/],
      [{ epochs: 0 }, /epochs is 0/],
      [{ callbacks: 3 }, /callbacks is 3/],
      [[1, 2], /got targets as its second argument/],
    ] as const)
      await fails(trainer.fit(examples, args as object), message);
    await fails(trainer.evaluate(examples, { batch_size: 4 } as object), /It is called batchSize here/);
    for (const data of ['text', 7, null, { input_ids: [[1, 2]] }, [['a']], [[1.5]], tf.scalar(1)])
      await fails(trainer.fit(data as never), /fit\(\)/);
    await fails(trainer.fitDataset(examples as never), /fit\(\) takes examples/);
    for (const [args, message] of [
      [{ lr: 1 }, /It is called learningRate here/],
      [{ weight_decay: 1 }, /It is called weightDecay here/],
      [{ beta1: 1 }, /beta1 is 1; expected a number of 0 or more and below 1/],
    ] as const)
      expect(() => new AdamW(args as object)).to.throw(ArgumentError, message);
  });

  it('looks at a batch before it asks for compile()', async () => {
    const rows = [[1, 2, 3]];
    const batches: [unknown, RegExp][] = [
      [{ input_ids: rows, labels: rows, atention_mask: rows }, /no option atention_mask. Did you mean attention_mask/],
      [{ input_ids: rows, label_ids: rows }, /It is called labels here/],
      [rows, /expected an object/],
    ];
    for (const [batch, says] of batches) {
      const error: unknown = await trainer
        .trainOnBatch(batch as Parameters<typeof trainer.trainOnBatch>[0])
        .catch((e: unknown) => e);
      expect(error).to.be.instanceOf(ArgumentError);
      expect((error as Error).message).to.match(says);
    }
  });

  it('refuses other losses and use before compile', async () => {
    expect(() => trainer.compile({ loss: 'mse' as never })).to.throw(/expected 'causal_lm'/);
    let message = '';
    await trainer.fit(examples).catch((error: Error) => (message = error.message));
    expect(message).to.match(/compile\(\) before fit/);
  });
});
