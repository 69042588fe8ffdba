/** States as values: splits, forks, files, orders of a batch, aborts; on the eager and the compiled engine. */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { ArgumentError, CheckpointError, DisposedError, GenerationError, SaveError } from '../../src/base/errors.js';

import { Int8WeightOnlyConfig } from '../../src/quant/index.js';
import { get_peft_model } from '../../src/peft/index.js';
import { Mamba2ForCausalLM } from '../../src/models/mamba2/causal_lm.js';
import { Mamba2State } from '../../src/models/mamba2/index.js';
import { inspectState } from '../../src/engine/states/file.js';
import { tensorCount, useBackend } from '../support/backends.js';
import { disposedAfterEach } from '../support/cleanup.js';
import { expectClose } from '../support/compare.js';
import { rejection } from '../support/errors.js';
import { lcg } from '../support/random.js';
import { randomIds, tinyModel, type TinyModel } from '../support/tiny_model.js';

const V = 11;
/** The error that a promise rejects with, which must be of this class. */
async function refusal<E extends Error>(
  promise: Promise<unknown>,
  kind: abstract new (...args: never[]) => E,
): Promise<E> {
  const error = await rejection(promise);
  expect(error).to.be.instanceOf(kind);
  return error as E;
}

const TOLERANCE = 1e-4;
const KINDS = ['eager', 'compiled'] as const;

describe('states', function () {
  this.timeout(180_000);
  let root: string;
  let dir: string;
  let tiny: TinyModel;
  const models = {} as Record<(typeof KINDS)[number], Mamba2ForCausalLM>;
  const made = disposedAfterEach();
  const kept = <T extends { dispose(): void }>(x: T): T => (made.push(x), x);

  before(async () => {
    await useBackend('tensorflow');
    root = fs.mkdtempSync(path.join(os.tmpdir(), 'states-'));
    dir = path.join(root, 'model');
    tiny = tinyModel();
    await tiny.model.save_pretrained(dir);
    for (const engine of KINDS)
      models[engine] = await Mamba2ForCausalLM.from_pretrained(dir, { engine, segments: [4, 8], batches: [1, 3] });
  });
  after(() => {
    [tiny.model, ...Object.values(models)].forEach((model) => model.dispose());
    fs.rmSync(root, { recursive: true });
  });

  /** The logits after each row's last token. */
  const logits = async (state: Mamba2State): Promise<Float32Array[]> =>
    (await state.model.engine()).logits(state.engine_state);
  /** What the oracle has after a whole text. */
  const want = (ids: readonly number[]): Float32Array => {
    const all = tiny.oracle(ids).logits.data;
    return Float32Array.from(all.slice((ids.length - 1) * V));
  };
  // without the pad id, 1, which generate() takes for padding where there is no mask
  const ids = (seed: number, length: number): number[] =>
    randomIds(lcg(seed), 1, length, V)[0]!.map((id) => (id === 1 ? 2 : id));
  const greedy = { do_sample: false, eos_token_id: null } as const;

  for (const kind of KINDS) {
    describe(`on the ${kind} engine`, () => {
      let model: Mamba2ForCausalLM;
      before(() => (model = models[kind]));

      it('are the same for any split of the text over calls', async () => {
        const random = lcg(5);
        const text = ids(6, 27);
        for (let round = 0; round < 8; round++) {
          const state = kept(await model.prefill([text[0]!]));
          for (let at = 1; at < text.length;) {
            const next = Math.min(text.length, at + 1 + Math.floor(random() * (round < 4 ? 4 : 14)));
            expect(await model.prefill(text.slice(at, next), { state })).to.equal(state);
            at = next;
          }
          expect(state.seen).to.deep.equal([27]);
          expect(state.ids).to.deep.equal([text]);
          expectClose((await logits(state))[0]!, want(text), TOLERANCE, `round ${round}`);
        }
      });

      it('fork: each goes on as if it had been alone, and the prefix stays', async () => {
        const prefix = ids(7, 13);
        const state = kept(await model.prefill(prefix));
        const before = (await logits(state))[0]!;
        const tails = [3, 9, 1].map((length, i) => ids(20 + i, length));
        for (const tail of tails) {
          const fork = kept(await state.clone());
          await model.prefill(tail, { state: fork });
          expectClose((await logits(fork))[0]!, want([...prefix, ...tail]), TOLERANCE, `tail of ${tail.length}`);
        }
        const three = kept(await state.select([0, 0, 0]));
        await model.prefill(tails, { state: three });
        expect(three.ids).to.deep.equal(tails.map((tail) => [...prefix, ...tail]));
        (await logits(three)).forEach((row, i) =>
          expectClose(row, want([...prefix, ...tails[i]!]), TOLERANCE, `row ${i}`),
        );
        expectClose((await logits(state))[0]!, before, 0, 'prefix');
        expect(state.seen).to.deep.equal([13]);
      });

      it('forks of forks outlive the forks between, whatever becomes of the first', async () => {
        const rows = [ids(34, 5), ids(35, 9), ids(36, 2)];
        const state = kept(await model.prefill(rows));
        const copy = await state.clone();
        const again = kept(await copy.clone());
        const part = await state.select([2, 0]);
        const spread = await part.select([1, 1, 0]); // rows 0, 0, 2
        const one = kept(await spread.select([2]));
        const turned = kept(await spread.select([2, 0, 1])); // rows 2, 0, 0
        for (const between of [part, copy, spread]) between.dispose();
        const check = async (fork: Mamba2State, of: number[]): Promise<void> =>
          (await logits(fork)).forEach((row, i) =>
            expectClose(row, want(rows[of[i]!]!), TOLERANCE, `rows ${of.join()} at ${i}`),
          );
        await check(one, [2]); // while the first is where it was
        await model.prefill([[1], [2], [3]], { state });
        await check(turned, [2, 0, 0]);
        state.dispose();
        await check(again, [0, 1, 2]);
      });

      it('give the same rows in any order of the batch', async () => {
        const rows = [ids(31, 5), ids(32, 21), ids(33, 12)];
        for (const order of [
          [0, 1, 2],
          [2, 0, 1],
          [1, 2, 0],
        ]) {
          const state = kept(await model.prefill(order.map((i) => rows[i]!)));
          const got = await logits(state);
          order.forEach((i, at) => expectClose(got[at]!, want(rows[i]!), TOLERANCE, `row ${i} at ${at}`));
          const back = kept(await state.select([0, 1, 2].map((i) => order.indexOf(i))));
          expect(back.ids).to.deep.equal(rows);
          const again = await logits(back);
          [0, 1, 2].forEach((i) => expectClose(again[i]!, got[order.indexOf(i)]!, 0, `row ${i} reordered`));
          const { sequences } = await model.generate({
            ...greedy,
            input_ids: [[], [], []],
            state: back,
            max_new_tokens: 6,
            return_dict_in_generate: true,
          });
          for (const i of [0, 1, 2]) {
            const alone = await model.generate({ ...greedy, input_ids: [rows[i]!], max_new_tokens: 6 });
            expect(sequences[i], `row ${i}`).to.deep.equal(alone[0]!.slice(rows[i]!.length));
          }
        }
      });

      it('come out of a file bit for bit, on either engine, and go on alike', async () => {
        const rows = [ids(41, 9), ids(42, 17), ids(43, 2)];
        const state = kept(await model.prefill(rows));
        const file = path.join(root, `${kind}.safetensors`);
        await state.save(file, { note: 'π' });
        const was = await state.toArrays();
        const info = await inspectState(file);
        expect(info.seen).to.deep.equal([9, 17, 2]);
        expect(info.extra).to.deep.equal({ note: 'π' });
        expect(info.config.num_hidden_layers).to.equal('2');
        const more = await model.generate({
          ...greedy,
          input_ids: [[1], [2], [3]],
          state,
          max_new_tokens: 8,
        });
        for (const other of KINDS) {
          const loaded = kept(await Mamba2State.load(models[other], file));
          const is = await loaded.toArrays();
          expect(Object.keys(is.tensors)).to.deep.equal(Object.keys(was.tensors));
          for (const [name, { shape, data }] of Object.entries(was.tensors)) {
            expect(is.tensors[name]!.shape).to.deep.equal(shape);
            expect(
              Buffer.from(is.tensors[name]!.data.buffer).equals(Buffer.from(data.buffer)),
              `${name} on ${other}`,
            ).to.equal(true);
          }
          expect(loaded.ids).to.deep.equal(rows);
          expect([loaded.seen, is.fed]).to.deep.equal([was.seen, was.fed]);
          const again = await models[other].generate({
            ...greedy,
            input_ids: [[1], [2], [3]],
            state: loaded,
            max_new_tokens: 8,
          });
          expect(again, other).to.deep.equal(more);
          expect(loaded.ids.map((row) => row.slice(-9))).to.deep.equal(more);
        }
      });

      it('that hold no logits yet say so, before a file and after it', async () => {
        const engine = await model.engine();
        const state = kept(await engine.createState(2));
        await engine.prefill(state, [Int32Array.of(4, 5), new Int32Array(0)]);
        const arrays = await state.toArrays();
        expect([arrays.seen, arrays.fed]).to.deep.equal([
          [2, 0],
          [true, false],
        ]);
        expect(arrays.tensors.logits!.data.subarray(V).every((x) => x === 0)).to.equal(true);
        const back = kept(await engine.fromArrays(arrays));
        expect((await refusal(engine.logits(back), GenerationError)).message).to.contain('row 1 has none');
        await engine.prefill(back, [new Int32Array(0), Int32Array.of(7)]);
        expectClose((await engine.logits(back))[1]!, want([7]), TOLERANCE);
      });

      it('go on in generate() and know what they have read', async () => {
        const prompt = ids(51, 6);
        const whole = (
          await model.generate({
            ...greedy,
            input_ids: [prompt],
            max_new_tokens: 12,
            repetition_penalty: 1.3,
          })
        )[0]!;
        const state = kept(await model.prefill(prompt));
        const options = { ...greedy, input_ids: [[]], state, repetition_penalty: 1.3 };
        const [first] = await model.generate({ ...options, max_new_tokens: 5 });
        const [second] = await model.generate({ ...options, max_new_tokens: 7 });
        // the penalty counts what was read in earlier calls
        expect([...prompt, ...first!, ...second!]).to.deep.equal(whole);
        expect(state.ids).to.deep.equal([whole]);
        expect(state.ids_known).to.equal(true);
        const start = kept(await model.prefill(prompt));
        const { new_tokens } = await model.generate({
          input_ids: [[]],
          state: start,
          max_new_tokens: 3,
          num_return_sequences: 3,
          do_sample: true,
          seed: 1,
          return_dict_in_generate: true,
        });
        expect(new_tokens.length).to.equal(3);
        expect(start.ids).to.deep.equal([prompt]);
        const { state: returned } = await model.generate({
          ...greedy,
          input_ids: [prompt],
          max_new_tokens: 12,
          repetition_penalty: 1.3,
          return_state: true,
        });
        expect((kept(returned!) as Mamba2State).ids).to.deep.equal([whole]);
      });

      it('of an answer that ends at an end token lie right behind that token', async () => {
        const prompt = ids(9, 6);
        const free = await model.generate({ input_ids: [prompt], max_new_tokens: 12, ...greedy });
        const rest = free[0]!.slice(prompt.length);
        // ends in the middle of what the engine decodes at a time
        const at = rest.findIndex((id, i) => i > 0 && rest.indexOf(id) === i);
        const eos_token_id = rest[at]!;
        const options = { input_ids: [prompt], max_new_tokens: 12, do_sample: false, eos_token_id };
        const out = await model.generate({ ...options, return_state: true });
        const text = [...prompt, ...rest.slice(0, at + 1)];
        expect(out.sequences[0]).to.deep.equal(text);
        const state = kept(out.state! as Mamba2State);
        expect(state.seen).to.deep.equal([text.length]);
        expectClose((await logits(state))[0]!, want(text), TOLERANCE, 'after the end token');
      });

      it('an abort while reading leaves whole segments, a usable state and no tensors', async () => {
        const text = ids(61, kind === 'eager' ? 1100 : 40);
        const piece = kind === 'eager' ? 512 : 8;
        const state = kept(await model.prefill([1]));
        const start = tensorCount();
        const control = new AbortController();
        const onProgress = (): void => control.abort(new Error('enough'));
        expect(
          (await refusal(model.prefill(text, { state, signal: control.signal, on_progress: onProgress }), Error))
            .message,
        ).to.equal('enough');
        expect(tensorCount()).to.deep.equal(start);
        expect(state.ids).to.deep.equal([[1, ...text.slice(0, piece)]]);
        const gone = new AbortController();
        await refusal(
          model.prefill(text, { signal: gone.signal, on_progress: () => gone.abort(new Error('enough')) }),
          Error,
        );
        expect(tensorCount(), 'fresh state').to.deep.equal(start);
        await model.prefill([2, 3], { state });
        const read = [1, ...text.slice(0, piece), 2, 3];
        expect(state.ids).to.deep.equal([read]);
        if (kind === 'compiled') expectClose((await logits(state))[0]!, want(read), TOLERANCE);
      });

      it('an abort while writing leaves the text so far, a usable state and no tensors', async () => {
        const prompt = ids(71, 6);
        const state = kept(await model.prefill(prompt));
        await model.generate({ ...greedy, input_ids: [[]], state: kept(await state.clone()), max_new_tokens: 2 });
        const start = tensorCount();
        const control = new AbortController();
        let count = 0;
        const streamer = {
          put: async (): Promise<void> => {
            if (++count === 2) control.abort(); // of tokens there may be one at a time, or 32
          },
          end: async (): Promise<void> => {},
        };
        const { new_tokens, finish_reasons } = await model.generate({
          ...greedy,
          input_ids: [[4]],
          state,
          max_new_tokens: 150,
          streamer,
          signal: control.signal,
          return_dict_in_generate: true,
        });
        expect(finish_reasons).to.deep.equal(['abort']);
        expect(new_tokens[0]!.length).to.be.within(1, 149);
        expect(tensorCount()).to.deep.equal(start);
        const read = [...prompt, 4, ...new_tokens[0]!];
        expect(state.ids).to.deep.equal([read]);
        expectClose((await logits(state))[0]!, want(read), TOLERANCE);
      });

      it('refuse to go on where a failure hid what they have read', async () => {
        const state = kept(await model.prefill([1, 2]));
        const streamer = {
          put: async (rows: number[][]): Promise<void> => void (rows[0]!.length && state.seen[0]! > 3 && fail()),
          end: async (): Promise<void> => {},
        };
        const fail = (): never => {
          throw new Error('full');
        };
        const options = { ...greedy, input_ids: [[]], state, max_new_tokens: 6 };
        await refusal(model.generate({ ...options, streamer }), Error);
        expect(state.ids_known).to.equal(false);
        const error = await refusal(model.generate(options), GenerationError);
        expect(error.message).to.contain('history');
      });
    });
  }

  it('are refused by another model, with both values named', async () => {
    const file = path.join(root, 'one.safetensors');
    await kept(await models.eager.prefill([1, 2, 3])).save(file);
    const deeper = kept(tinyModel({ num_hidden_layers: 3 }).model);
    const sizes = await refusal(Mamba2State.load(deeper, file), CheckpointError);
    expect(sizes.message).to.contain('num_hidden_layers is 2, that of the model given is 3');
    const limited = kept(tinyModel({ time_step_limit: [0, 0.5] }).model);
    expect((await refusal(Mamba2State.load(limited, file), CheckpointError)).message).to.contain(
      '[0, Infinity], that of the model given is [0, 0.5]',
    );
    const trained = kept(tinyModel({}, 32).model);
    const weights = await refusal(Mamba2State.load(trained, file), CheckpointError);
    expect(weights.data).to.include({ key: 'weights_sha256' });
    expect(weights.message)
      .to.contain((weights.data.got as string).slice(0, 16))
      .and.contain((weights.data.expected as string).slice(0, 16));
    // neither a model with an adapter nor a quantised one is the model that wrote it
    const adapted = kept(tinyModel().model);
    get_peft_model(adapted, { r: 2, target_modules: ['out_proj'] });
    await refusal(Mamba2State.load(adapted, file), CheckpointError);
    const quantised = kept(
      await Mamba2ForCausalLM.from_pretrained(dir, {
        engine: 'eager',
        quantization_config: new Int8WeightOnlyConfig(),
      }),
    );
    await refusal(Mamba2State.load(quantised, file), CheckpointError);
    // the same weights in memory are the same model, wherever they came from
    kept(await Mamba2State.load(tiny.model, file));
    const state = kept(await models.eager.prefill([1]));
    await refusal(models.compiled.prefill([2], { state }), ArgumentError);
    await refusal(models.compiled.generate({ input_ids: [[2]], state }), ArgumentError);
  });

  it('of an engine that was replaced are refused, and no other text is taken for theirs', async () => {
    const model = kept(await Mamba2ForCausalLM.from_pretrained(dir, { engine: 'compiled', segments: [4, 8] }));
    const parked = kept(await model.prefill([3, 4]));
    const state = kept(await model.prefill([1, 2]));
    const fork = kept(await state.clone());
    const { tensors } = await parked.toArrays();
    // other tensors of the same values: the engine cannot know, and is made anew
    const norm = model.weights.all()['backbone.norm_f.weight'] as tf.Variable;
    tf.tidy(() => norm.assign(tf.mul(norm, 1)));
    const other = kept(await model.prefill(ids(81, 7)));
    for (const lost of [state, fork, parked]) {
      expect((await refusal(model.prefill([5], { state: lost }), ArgumentError)).message).to.contain(
        'belongs to another engine',
      );
      expect(
        (await refusal(model.generate({ ...greedy, input_ids: [[5]], state: lost, max_new_tokens: 2 }), ArgumentError))
          .message,
      ).to.contain('another engine');
      expect((await refusal(logits(lost), ArgumentError)).message).to.contain('another engine');
    }
    for (const lost of [state, fork]) {
      expect((await refusal(lost.toArrays(), DisposedError)).message).to.contain('went with its engine');
      await refusal(lost.save(path.join(root, 'lost.safetensors')), DisposedError);
    }
    expect(fs.existsSync(path.join(root, 'lost.safetensors'))).to.equal(false);
    // what lies on the host already can be saved yet
    expect((await parked.toArrays()).tensors).to.deep.equal(tensors);
    for (const lost of [state, fork, parked]) lost.dispose();
    expectClose((await logits(other))[0]!, want(ids(81, 7)), TOLERANCE);
  });

  it('in files that are damaged or something else are refused', async () => {
    const file = path.join(root, 'whole.safetensors');
    await kept(await models.eager.prefill([1, 2, 3])).save(file);
    const bytes = fs.readFileSync(file);
    const damaged = path.join(root, 'damaged.safetensors');
    const attempt = async (content: Buffer): Promise<string> => {
      fs.writeFileSync(damaged, content);
      return (await refusal(Mamba2State.load(models.eager, damaged), CheckpointError)).message;
    };
    await attempt(bytes.subarray(0, bytes.length - 7));
    const text = bytes.toString('latin1');
    expect(await attempt(Buffer.from(text.replace('mamba2-state', 'mamba2-stale'), 'latin1'))).to.contain(
      "expected 'mamba2-state'",
    );
    expect(await attempt(Buffer.from(text.replace('"version":"1"', '"version":"2"'), 'latin1'))).to.contain(
      'version 2',
    );
    expect(await attempt(Buffer.from(text.replace('"seen":"[3]"', '"seen":"[x]"'), 'latin1'))).to.contain('seen');
    expect(await attempt(Buffer.from(text.replace('"layers.1.ssm"', '"layers.1.sss"'), 'latin1'))).to.contain(
      'layers.1.ssm is missing',
    );
    const model = await refusal(inspectState(path.join(dir, 'model.safetensors')), CheckpointError);
    expect(model.message).to.contain('holds no state');
    await refusal(kept(await models.eager.prefill([1])).save(path.join(root, 'nowhere', 'x.safetensors')), SaveError);
    expect(fs.readdirSync(root).filter((name) => name.includes('tmp'))).to.deep.equal([]);
  });

  it('need a prompt, and a tokenizer for a text', async () => {
    for (const prompt of [[], [[]], [[1], []]]) await refusal(models.eager.prefill(prompt), ArgumentError);
    expect((await refusal(models.eager.prefill('Once'), ArgumentError)).message).to.contain('tokenizer');
    await refusal(models.eager.prefill([1, V]), ArgumentError);
    await refusal(models.eager.prefill([[1], 'x'] as never), ArgumentError);
  });
});
