/** Options of pipelines and of their calls: checked before anything is loaded, by name. */
import { expect } from 'chai';
import { ArgumentError, GenerationError, Mamba2Error } from '../../src/base/errors.js';
import { GenerationConfig } from '../../src/generation/index.js';
import { perplexity, pipeline } from '../../src/pipelines/index.js';
import type { FeatureExtractionPipeline, PipelineModel, TextGenerationPipeline } from '../../src/pipelines/index.js';
import { Tokenizer } from '../../src/tokenizers/index.js';
import { useBackend } from '../support/backends.js';
import { disposedAfterEach } from '../support/cleanup.js';
import { rejection } from '../support/errors.js';
import { hashedLogits, scriptedLogits, ToyEngine } from '../support/toy_engine.js';

const MODEL = 'models/tiny-books-mamba2';

/** As from JavaScript, where nothing checks types. */
type Loose = (...args: unknown[]) => Promise<unknown>;
const loose = (call: unknown): Loose => call as Loose;

const toyModel = (toy: ToyEngine, config = new GenerationConfig({ max_new_tokens: 6 })): PipelineModel => ({
  config: {},
  generation_config: config,
  engine: async () => toy,
  dispose: () => undefined,
});

describe('options of pipelines', () => {
  let tokenizer: Tokenizer;
  let generator: TextGenerationPipeline;
  before(async () => {
    tokenizer = await Tokenizer.from_pretrained(MODEL);
    generator = await pipeline('text-generation', toyModel(new ToyEngine(4096, hashedLogits(4096))), { tokenizer });
  });

  const refused: [object, RegExp][] = [
    [{ dtpye: 'float32' }, /no option dtpye\. Did you mean dtype\?/],
    [{ progress_callback: true }, /progress_callback is true; expected a function/],
    [{ dtype: 'fp16' }, /dtype is "fp16".*float16/],
    [{ dtype: 'q4' }, /dtype is "q4"/],
    [{ device: 'webgpu' }, /device 'webgpu' is one of the browser's build/],
    [{ device: 'metal' }, /device is "metal".*cuda/],
    [{ device: 0, device_map: 'auto' }, /device_map.*either/],
    [{ framework: 'pt' }, /framework.*one framework/],
    [{ max_new_tokens: 5 }, /max_new_tokens.*belongs to the call/],
    [{ pooling: 'mean' }, /pooling.*belongs to the call/],
    [{ batch_size: 0 }, /batch_size is 0; expected an integer/],
    [{ model_kwargs: { dtpye: 'float32' } }, /dtpye/],
    [{ trust_remote_code: true }, /trust_remote_code.*no code/],
    [{ use_fast: false }, /use_fast/],
  ];
  for (const [options, message] of refused)
    it(`pipeline() refuses ${Object.keys(options).join(' with ')}`, async () => {
      const error = await rejection(loose(pipeline)('text-generation', MODEL, options));
      expect(error).to.be.instanceOf(Mamba2Error);
      expect(error.message).to.match(message);
    });

  it('pipeline() says what to pass for a task, a model and a tokenizer', async () => {
    const message = async (...args: unknown[]): Promise<string> => {
      const error = await rejection(loose(pipeline)(...args));
      expect(error).to.be.instanceOf(ArgumentError);
      return error.message;
    };
    expect(await message('text-generation')).to.match(/no model, and there is no default one.*tiny-books-mamba2/);
    expect(await message({ task: 'text-generation', model: MODEL })).to.match(/pipeline\('text-generation'/);
    expect(await message('summarization', MODEL)).to.match(/no task "summarization"/);
    expect(await message('text-generation', 5)).to.match(/got 5 where the model belongs/);
    const model = toyModel(new ToyEngine(4096, hashedLogits(4096)));
    expect(await message('text-generation', model, { tokenizer, dtype: 'float32' })).to.match(
      /dtype has no effect, since the model is loaded/,
    );
    expect(await message('text-generation', model, { tokenizer, tokenizer_options: {} })).to.match(/no effect/);
    const stopped = AbortSignal.abort(new Error('enough'));
    expect((await rejection(pipeline('text-generation', MODEL, { signal: stopped }))).message).to.equal('enough');
  });

  it('calls refuse what they do not know, before they look at the prompt', async () => {
    for (const [options, message] of [
      [{ max_new_token: 5 }, /Did you mean max_new_tokens\?/],
      [{ return_dict_in_generate: true }, /called return_dict here/],
      [{ stop: 'x' }, /called stop_strings here/],
      [{ temperature: 0.5 }, /temperature.*do_sample/],
      [{ top_p: 2, do_sample: true }, /top_p is 2/],
      [{ batch_size: 0 }, /batch_size is 0/],
      [{ truncation: true }, /truncation.*any length/],
      [{ return_full_text: 'no' }, /return_full_text is "no"; expected true or false/],
      ['x', /where its options belong/],
    ] as const) {
      const error = await rejection(loose(generator)(5, options));
      expect(error.message).to.match(message);
      expect(error instanceof ArgumentError || error instanceof GenerationError).to.equal(true);
    }
    expect((await rejection(loose(perplexity)({}, [1, 2], { segmnet: 5 }))).message).to.match(/Did you mean segment\?/);
    expect((await rejection(loose(generator.warmup)({ batch: [1] }))).message).to.match(/Did you mean batches\?/);
    expect((await rejection(loose(generator.warmup)({ lengths: [] }))).message).to.match(/lengths is \[\]/);
  });

  it('return_dict tells why a text ended, and counts its tokens', async () => {
    const prompt = await tokenizer.encode('Once upon');
    const answer = await tokenizer.encode(' a time');
    const config = new GenerationConfig({ max_new_tokens: 60, eos_token_id: 0 });
    const toy = toyModel(new ToyEngine(4096, scriptedLogits(4096, prompt.length, [...answer, 0])), config);
    const pipe = await pipeline('text-generation', toy, { tokenizer, batch_size: 2 });
    const [row] = await pipe('Once upon', { return_dict: true });
    // typed without a cast
    const counts: [string, string, number, number] = [
      row!.generated_text,
      row!.finish_reason,
      row!.prompt_tokens,
      row!.completion_tokens,
    ];
    expect(counts).to.deep.equal(['Once upon a time', 'eos', prompt.length, answer.length + 1]);
    const many = await pipe(['Once upon', 'Once upon'], {
      return_dict: true,
      max_new_tokens: 1,
      num_return_sequences: 2,
      do_sample: true,
    });
    expect(many.flat().map((r) => [r.finish_reason, r.completion_tokens])).to.deep.equal(
      Array.from({ length: 4 }, () => ['length', 1]),
    );
    expect(Object.keys((await pipe('Once upon'))[0]!)).to.deep.equal(['generated_text']);
    const ids = (await pipe('Once upon', { return_dict: true, return_tensors: true, return_full_text: false }))[0]!;
    expect([ids.generated_token_ids, ids.finish_reason]).to.deep.equal([[...answer, 0], 'eos']);
  });
});

describe('warm pipelines', function () {
  this.timeout(240_000);
  before(() => useBackend('tensorflow'));
  const cleanup = disposedAfterEach();

  const counted = async <P>(
    make: (options: { on_compile: (name: string, phase: string, ms: number | null) => void }) => Promise<P>,
  ): Promise<{ pipe: P; compiled: string[] }> => {
    const compiled: string[] = [];
    const on_compile = (name: string, phase: string, ms: number | null): void => {
      if (phase === 'compile' && ms !== null) compiled.push(name);
    };
    return { pipe: await make({ on_compile }), compiled };
  };

  it('compile nothing more in the calls they were made ready for', async () => {
    const { pipe, compiled } = await counted<TextGenerationPipeline>((options) =>
      pipeline('text-generation', MODEL, options),
    );
    cleanup.push(pipe);
    const seen: [number, number][] = [];
    await pipe.warmup({ batches: [1, 2], lengths: [9], on_progress: (done, total) => seen.push([done, total]) });
    expect(seen.at(-1)![0]).to.equal(seen.at(-1)![1]);
    expect(compiled.length).to.be.greaterThan(4);
    const before = compiled.length;
    const streamer = { put: () => undefined, end: () => undefined };
    await pipe('Once upon a time', { max_new_tokens: 20, do_sample: false });
    await pipe('Once upon a time', { max_new_tokens: 20, do_sample: true, seed: 1, streamer });
    await pipe(['Once upon', 'It is a truth'], { max_new_tokens: 5, do_sample: true, batch_size: 2 });
    expect(compiled.slice(before)).to.deep.equal([]);
    const stop = new AbortController();
    const stopping = pipe.warmup({
      batches: [1, 2],
      on_progress: () => stop.abort(new Error('enough')),
      signal: stop.signal,
    });
    expect((await rejection(stopping)).message).to.equal('enough');
  });

  it('are warm, too, where the id that they are made ready with is that of padding', async () => {
    const pipe = await pipeline('text-generation', MODEL, { engine: 'eager' });
    cleanup.push(pipe);
    Object.assign(pipe.model.generation_config, { pad_token_id: 0, eos_token_id: 5 });
    await pipe.warmup({ lengths: [2], generation: { do_sample: false } });
  });

  it('extract features by the compiled engine, and stop between pieces', async () => {
    const { pipe, compiled } = await counted<FeatureExtractionPipeline>((options) =>
      pipeline('feature-extraction', MODEL, options),
    );
    const eager = await pipeline('feature-extraction', MODEL, { engine: 'eager', dtype: 'float32' });
    const exact = await pipeline('feature-extraction', MODEL, { dtype: 'float32' });
    cleanup.push(pipe, eager, exact);
    const text = 'It is a truth universally acknowledged, that a single man in possession of a good fortune. '.repeat(
      5,
    );
    await pipe.warmup({ lengths: [(await pipe.tokenizer.encode(text)).length] });
    const before = compiled.length;
    await pipe(text, { pooling: 'mean' });
    expect(before).to.be.greaterThan(0);
    expect(compiled.slice(before)).to.deep.equal([]);
    const [want, got] = [(await eager(text))[0]!, (await exact(text))[0]!];
    expect(got.length).to.equal(want.length);
    got.forEach((row, t) => row.forEach((x, i) => expect(Math.abs(x - want[t]![i]!)).to.be.below(1e-4)));

    let ticks = 0;
    const timer = setInterval(() => ticks++, 0);
    await exact([text, text], { prefill_chunk_size: 16 });
    clearInterval(timer);
    expect(ticks).to.be.greaterThan(4);
    const stop = new AbortController();
    setTimeout(() => stop.abort(new Error('enough')), 1);
    const stopped = exact(new Array<string>(50).fill(text), { prefill_chunk_size: 16, signal: stop.signal });
    expect((await rejection(stopped)).message).to.equal('enough');
  });

  it('refuse what has no effect in a call', async () => {
    const pipe = await pipeline('feature-extraction', MODEL);
    cleanup.push(pipe);
    for (const [options, message] of [
      [{ pooling: 'cls' }, /'cls'.*seen no other/],
      [{ poolnig: 'mean' }, /Did you mean pooling\?/],
      [{ normalize: true }, /normalize is true, which has no effect/],
      [{ max_length: 5 }, /max_length is 5, which has no effect without truncation/],
      [{ quantize: true }, /quantize/],
      [{ signal: 5 }, /signal is 5; expected an AbortSignal/],
    ] as const)
      expect((await rejection(loose(pipe)(7, options))).message).to.match(message);
    expect((await rejection(loose(pipe)(7))).message).to.match(/got 7; expected a text/);
    const [cut] = await pipe('It is a truth universally acknowledged', { truncation: true, max_length: 3 });
    expect(cut!.length).to.equal(3);
  });
});
