/** What callers hand to generate(): asynchronous where an answer is wanted at once, deep ids, aborts between tokens, rows beyond memory. */
import * as os from 'node:os';
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { ArgumentError, DeviceError, GenerationError } from '../../src/base/errors.js';
import { freeMemory } from '../../src/base/memory.js';
import { CompiledEngine } from '../../src/engine/compiled/compiled_engine.js';
import { EagerEngine } from '../../src/engine/eager_engine.js';
import { idGrid } from '../../src/engine/inputs.js';
import { generate, GenerationConfig, type GenerateInputs, type GenerationEngine } from '../../src/generation/index.js';
import { readRows } from '../../src/generation/ids.js';
import { Mamba2Config } from '../../src/models/mamba2/config.js';
import { Mamba2ForCausalLM } from '../../src/models/mamba2/causal_lm.js';
import { tensorCount, useBackend } from '../support/backends.js';
import { disposedAfterEach } from '../support/cleanup.js';
import { rejection, thrown } from '../support/errors.js';
import { tinyModel } from '../support/tiny_model.js';

describe('what callers hand to generate()', function () {
  this.timeout(120_000);
  before(() => useBackend('tensorflow'));
  const cleanup = disposedAfterEach();
  const unhandled: unknown[] = [];
  const note = (error: unknown): void => void unhandled.push(error);
  before(() => process.on('unhandledRejection', note));
  after(() => process.off('unhandledRejection', note));

  const engines = (): GenerationEngine[] => {
    const { model } = tinyModel();
    const compiled = new CompiledEngine(model.weights, { segments: [8], block: 4 });
    cleanup.push(model, compiled);
    return [new EagerEngine(model.weights), compiled];
  };
  const run = (engine: GenerationEngine, inputs: Partial<GenerateInputs>): Promise<{ new_tokens: number[][] }> =>
    generate(engine, new GenerationConfig({}), { input_ids: [[1, 2, 3]], max_new_tokens: 4, ...inputs });
  const settled = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 20));

  it('an asynchronous processor or constraint is refused by name, and its later failure ends nothing', async () => {
    class Slow {
      async process(): Promise<void> {
        await settled();
        throw new Error('too late');
      }
    }
    for (const engine of engines())
      for (const num_beams of [1, 2]) {
        const processor = await rejection(run(engine, { num_beams, logits_processor: [new Slow()] }));
        expect(processor).to.be.instanceOf(GenerationError);
        expect(processor.message).to.match(/logits processor Slow returned a promise/);
        const allowed = async (): Promise<number[]> => Promise.reject(new Error('too late'));
        const constraint = await rejection(run(engine, { num_beams, prefix_allowed_tokens_fn: allowed as never }));
        expect(constraint.message).to.match(/prefix_allowed_tokens_fn returned a promise/);
        const nothing = await rejection(run(engine, { num_beams, prefix_allowed_tokens_fn: (() => 7) as never }));
        expect(nothing.message).to.match(/prefix_allowed_tokens_fn returned 7 .*expected a list of ids/);
      }
    await settled();
    expect(unhandled).to.deep.equal([]);
  });

  it('asynchronous criteria, streamers and reports of progress are waited for, and their failures are the call’s', async () => {
    const fail = async (): Promise<never> => {
      await settled();
      throw new Error('mine');
    };
    const given: Partial<GenerateInputs>[] = [
      { stopping_criteria: [{ done: fail }] },
      { streamer: { put: fail, end: () => undefined } },
      { streamer: { put: () => undefined, end: fail } },
      { on_progress: fail },
      { on_progress: fail, prefill_chunk_size: 2 },
    ];
    for (const engine of engines())
      for (const inputs of given) expect((await rejection(run(engine, inputs))).message).to.equal('mine');
    await settled();
    expect(unhandled).to.deep.equal([]);
  });

  it('ids that lie deeper, or are none, are refused by row and position', () => {
    const wrong: [unknown, RegExp][] = [
      [[[[1]]], /Row 0 of input_ids holds \[1\] at position 0.*deeper/],
      [[[[1, 2]], [[3, 4]]], /Row 0 of input_ids holds \[1,\s?2\].*deeper/],
      [[[1, [2]]], /Row 0 of input_ids holds \[2\] at position 1/],
      [[[1], 2], /Row 1 of input_ids is 2/],
      [[1, [2]], /Row 0 of input_ids is 1/],
      [[['1']], /holds .1. at position 0; expected a number/],
      [[[null]], /holds null at position 0/],
      [[[undefined]], /holds undefined at position 0/],
      [[[{}]], /holds \{\} at position 0/],
    ];
    for (const [value, message] of wrong) {
      for (const read of [() => readRows(value, 'input_ids'), () => idGrid(value as never, 10)]) {
        const error = thrown(read);
        expect(error).to.be.instanceOf(ArgumentError);
        expect(error.message).to.match(message);
      }
    }
    tf.tidy(() => {
      for (const tensor of [tf.zeros([1, 1, 1], 'int32'), tf.zeros([2, 1, 2, 1], 'int32'), tf.scalar(1, 'int32')])
        expect(thrown(() => readRows(tensor, 'input_ids')).message).to.match(/tensor has shape/);
    });
    expect(readRows([[true, false]], 'attention_mask')).to.deep.equal([[1, 0]]);
    expect(readRows([1n, 2], 'input_ids')).to.deep.equal([[1, 2]]);
  });

  it('an abort is seen within a block of tokens, without a streamer too', async () => {
    for (const engine of engines())
      for (const num_beams of [1, 2]) {
        await run(engine, { num_beams }); // compiles
        const limit = 4000;
        const controller = new AbortController();
        setTimeout(() => controller.abort(), 30);
        const { new_tokens } = await run(engine, { num_beams, signal: controller.signal, max_new_tokens: limit });
        expect(new_tokens[0]!.length, `${engine.kind}, ${num_beams} beams`).to.be.lessThan(limit);
      }
    for (const engine of engines()) {
      const long = { input_ids: [Array.from({ length: 4000 }, (_, i) => i % 11)], prefill_chunk_size: 8 };
      const error = await rejection(run(engine, { ...long, signal: AbortSignal.timeout(5) }));
      expect(error.name).to.equal('TimeoutError');
    }
  });

  it('padding is inferred as transformers infers it: pad_token_id among the ids, where it ends no row', async () => {
    for (const engine of engines()) {
      const config = new GenerationConfig({ pad_token_id: 9, eos_token_id: 10 });
      const write = async (inputs: GenerateInputs, c = config): Promise<number[][]> =>
        (await generate(engine, c, { max_new_tokens: 3, min_new_tokens: 3, ...inputs })).new_tokens;
      const alone = [...(await write({ input_ids: [[1, 2]] })), ...(await write({ input_ids: [[4, 5, 6, 7]] }))];
      for (const row of [
        [9, 9, 1, 2],
        [1, 2, 9, 9],
        [1, 9, 2, 9],
      ])
        expect(await write({ input_ids: [row, [4, 5, 6, 7]] })).to.deep.equal(alone);
      // said to be text, or no padding at all: as it stands
      const given = { input_ids: [[9, 1, 2]] };
      const read = await write({ ...given, attention_mask: [[1, 1, 1]] });
      const none = new GenerationConfig({ eos_token_id: 10 });
      expect(await write(given, none)).to.deep.equal(read);
      const ends = new GenerationConfig({ pad_token_id: 9, eos_token_id: [9, 10] });
      expect(await write(given, ends)).to.deep.equal(await write({ ...given, attention_mask: [[1, 1, 1]] }, ends));
      expect((await rejection(write({ input_ids: [[9, 9]] }))).message).to.match(/row 0 is empty/);
    }
  });

  it('forward() says once that rows look padded', async () => {
    const { model } = tinyModel({ pad_token_id: 9 });
    cleanup.push(model);
    const said: Error[] = [];
    const listen = (warning: Error): void => void said.push(warning);
    process.on('warning', listen);
    try {
      for (const ids of [[[1, 2, 3]], [[9, 9, 1]], [[1, 9, 9]]]) model.forward({ input_ids: ids }).logits.dispose();
      await settled();
    } finally {
      process.off('warning', listen);
    }
    expect(said.map(({ message }) => message).join()).to.match(/pad_token_id 9 and no attention_mask/);
    expect(said).to.have.length(1);
  });

  it('rows beyond the memory there is are refused before anything is made, with how much they take', async () => {
    const per_row = 2 ** 24;
    const config = new Mamba2Config({
      ...{
        vocab_size: 64,
        hidden_size: 64,
        num_heads: 2,
        head_dim: 64,
        state_size: per_row / 4 / 128 / 2,
        n_groups: 1,
      },
      ...{ num_hidden_layers: 2, conv_kernel: 4, tie_word_embeddings: true },
    });
    const model = new Mamba2ForCausalLM(config);
    const engine = new CompiledEngine(model.weights, {});
    cleanup.push(model, engine);
    const rows = Math.ceil((2 * os.totalmem()) / per_row);
    expect(freeMemory())
      .to.be.greaterThan(2 ** 26)
      .and.at.most(os.totalmem());
    for (const kind of [engine, new EagerEngine(model.weights)]) {
      const start = tensorCount();
      const errors = [
        await rejection(run(kind, { num_beams: rows })),
        await rejection(run(kind, { do_sample: true, num_return_sequences: rows })),
        await rejection(run(kind, { input_ids: Array.from({ length: rows }, () => [1]) })),
        await rejection(
          (async () =>
            kind.prefill(await kind.createState(rows), new Array<Int32Array>(rows).fill(Int32Array.of(1))))(),
        ),
      ];
      for (const error of errors) {
        expect(error).to.be.instanceOf(DeviceError);
        expect(error.message).to.match(/would take at least [\d.]+ GiB of memory, and [\d.]+ GiB are free/);
        expect(error.message).to.match(/num_beams|num_return_sequences|fewer/);
        expect((error as DeviceError).data).to.include.keys('needed', 'free', 'total');
      }
      expect(tensorCount()).to.deep.equal(start);
    }
    const many = Array.from({ length: 2 ** 10 }, () => [1]);
    const grid = thrown(() => model.forward({ input_ids: many.map(() => new Array<number>(2 ** 15).fill(1)) }));
    expect(grid).to.be.instanceOf(DeviceError);
  });
});
