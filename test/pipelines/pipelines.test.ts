import { expect } from 'chai';
import { ArgumentError, GenerationError, TokenizerError } from '../../src/base/errors.js';
import { GenerationConfig, TextIteratorStreamer } from '../../src/generation/index.js';
import { pipeline } from '../../src/pipelines/index.js';
import type { PipelineModel, TextGenerationPipeline } from '../../src/pipelines/index.js';
import { Tokenizer } from '../../src/tokenizers/index.js';
import type { ChatMessage, ChatTemplateOptions, TemplateMessage } from '../../src/tokenizers/index.js';
import { useBackend } from '../support/backends.js';
import { rejection } from '../support/errors.js';
import { loadGolden } from '../support/goldens.js';
import { hashedLogits, scriptedLogits, ToyEngine } from '../support/toy_engine.js';

const MODEL = 'models/tiny-books-mamba2';
const TEMPLATE =
  '{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}';

describe('text-generation pipeline', () => {
  let tokenizer: Tokenizer;
  before(async () => {
    tokenizer = await Tokenizer.from_pretrained(MODEL);
  });

  interface Made extends PipelineModel {
    toy: ToyEngine;
    disposed: number;
  }
  function toyModel(toy: ToyEngine): Made {
    return {
      toy,
      disposed: 0,
      config: {},
      generation_config: new GenerationConfig({ max_new_tokens: 6 }),
      engine: async () => toy,
      dispose() {
        this.disposed++;
      },
    };
  }
  const hashed = (): Promise<TextGenerationPipeline> =>
    pipeline('text-generation', toyModel(new ToyEngine(4096, hashedLogits(4096))), { tokenizer });

  it('gives a row for a text, and a list of rows for a list', async () => {
    const generator = await hashed();
    const one = await generator('Once upon');
    expect(one.length).to.equal(1);
    expect(one[0]!.generated_text.startsWith('Once upon')).to.equal(true);
    const many = await generator(['Once upon', 'It is a truth']);
    expect(many.length).to.equal(2);
    expect(many[0]).to.deep.equal(one);
    const rest = await generator('Once upon', { return_full_text: false });
    expect('Once upon' + rest[0]!.generated_text).to.equal(one[0]!.generated_text);
    const { generated_token_ids } = (await generator('Once upon', { return_tensors: true }))[0]!;
    expect(await tokenizer.decode(generated_token_ids!, { skip_special_tokens: true })).to.equal(
      one[0]!.generated_text,
    );
  });

  it('gives the same for any batch_size, sampling included', async () => {
    const generator = await hashed();
    const texts = ['a', 'It is', 'Emma was not there', 'She', 'Who is he'];
    for (const options of [{}, { do_sample: true, seed: 3, num_return_sequences: 2 }, { num_beams: 3 }]) {
      const want = await generator(texts, options);
      expect(want.map((rows) => rows.length)).to.deep.equal(texts.map(() => options.num_return_sequences ?? 1));
      for (const batch_size of [2, 5, 8]) {
        expect(await generator(texts, { ...options, batch_size })).to.deep.equal(want);
      }
    }
  });

  it('takes the number of rows and the seed from the call, from its generation_config or from the model, in this order', async () => {
    const model = toyModel(new ToyEngine(4096, hashedLogits(4096)));
    const generator = await pipeline('text-generation', model, { tokenizer });
    const texts = ['Once upon a time', 'The sea'];
    const options = { do_sample: true, seed: 1, num_return_sequences: 2 };
    const want = await generator(texts, options);
    expect(want.map((rows) => rows.length)).to.deep.equal([2, 2]);
    texts.forEach((text, i) => want[i]!.forEach((row) => expect(row.generated_text.startsWith(text)).to.equal(true)));
    const generation_config = new GenerationConfig(options);
    expect(await generator(texts, { generation_config })).to.deep.equal(want);
    // An undefined option of the call leaves what is below it.
    expect(await generator(texts, { generation_config, seed: undefined })).to.deep.equal(want);

    Object.assign(model.generation_config, { num_return_sequences: 3, seed: 9 });
    expect(await generator(texts, { generation_config })).to.deep.equal(want);
    const single = await generator(texts, { do_sample: true, num_return_sequences: null });
    expect(single.map((rows) => rows.length)).to.deep.equal([1, 1]);
    // Without a seed each call draws anew.
    const unseeded = { do_sample: true, seed: null };
    expect(await generator(texts, unseeded)).to.not.deep.equal(await generator(texts, unseeded));
  });

  it('answers a chat, one or several, or goes on with its last message', async () => {
    const chat = [{ role: 'user', content: 'Who is she?' }];
    const prompt = await tokenizer.encode('[user] Who is she?\n[assistant] ');
    const answer = await tokenizer.encode('A lady.');
    const toy = new ToyEngine(4096, scriptedLogits(4096, prompt.length, [...answer, 0]));
    const model = toyModel(toy);
    model.generation_config.eos_token_id = 0;
    const generator = await pipeline('text-generation', model, { tokenizer });
    const chat_template_options = { chat_template: TEMPLATE };
    const want = [{ generated_text: [...chat, { role: 'assistant', content: 'A lady.' }] }];
    expect(await generator(chat, { chat_template_options })).to.deep.equal(want);
    expect(await generator([chat, chat], { chat_template_options })).to.deep.equal([want, want]);
    const { generated_text } = (await generator(chat, { chat_template_options, return_full_text: false }))[0]!;
    expect(generated_text).to.equal('A lady.');

    const begun = [...chat, { role: 'assistant', content: 'A la' }];
    const open = await tokenizer.encode('[user] Who is she?\n[assistant] A la');
    const more = toyModel(new ToyEngine(4096, scriptedLogits(4096, open.length, await tokenizer.encode('dy.'))));
    const goesOn = await pipeline('text-generation', more, { tokenizer });
    const { generated_text: whole } = (await goesOn(begun, { chat_template_options, max_new_tokens: 1 }))[0]!;
    expect(whole.length).to.equal(2);
    expect(whole[1]!.content.startsWith('A lad')).to.equal(true);
    expect(begun[1]!.content).to.equal('A la');
  });

  it('takes the messages of tool use, and parts, whose last text it goes on with', async () => {
    const generator = await hashed();
    const chat_template =
      '{% for m in messages %}[{{ m.role }}]{% for p in m.content or [] %}{{ p.text }}{% endfor %}{% for c in m.tool_calls or [] %}{{ c.name }}{% endfor %}|{% endfor %}';
    const chat: TemplateMessage[] = [
      { role: 'user', content: [{ type: 'text', text: 'Who?' }] },
      { role: 'assistant', tool_calls: [{ name: 'look' }] },
      { role: 'tool', content: [{ type: 'text', text: 'Emma' }] },
    ];
    const options = { chat_template_options: { chat_template } };
    const text = (await generator('[user]Who?|[assistant]look|[tool]Emma|', { return_full_text: false }))[0]!;
    const { generated_text } = (await generator(chat, options))[0]!;
    expect(generated_text).to.deep.equal([...chat, { role: 'assistant', content: text.generated_text }]);

    const begun = [...chat, { role: 'assistant', content: [{ type: 'text', text: 'She' }, { type: 'image' }] }];
    const rest = (
      await generator('[user]Who?|[assistant]look|[tool]Emma|[assistant]She', { return_full_text: false })
    )[0]!;
    const { generated_text: whole } = (await generator(begun, options))[0]!;
    const parts = [{ type: 'text', text: 'She' + rest.generated_text }, { type: 'image' }];
    expect(whole).to.deep.equal([...chat, { role: 'assistant', content: parts }]);
    expect(begun[3]!.content).to.deep.equal([{ type: 'text', text: 'She' }, { type: 'image' }]);
  });

  it('honours add_generation_prompt and continue_final_message among the options of the template', async () => {
    const generator = await hashed();
    const chat = [{ role: 'user', content: 'Who is she?' }];
    const open = [...chat, { role: 'assistant', content: 'A lady' }];
    const got = async (messages: ChatMessage[], given: ChatTemplateOptions, options: object = {}): Promise<string> => {
      const chat_template_options = { chat_template: TEMPLATE, ...given };
      const rows = await generator(messages, { chat_template_options, return_full_text: false, ...options });
      return rows[0]!.generated_text as unknown as string;
    };
    const after = async (prompt: string): Promise<string> =>
      (await generator(prompt, { return_full_text: false }))[0]!.generated_text;
    const [asked, answered] = ['[user] Who is she?\n', '[user] Who is she?\n[assistant] A lady\n'];
    expect(await got(chat, {})).to.equal(await after(asked + '[assistant] '));
    expect(await got(chat, { add_generation_prompt: false })).to.equal(await after(asked));
    expect(await got(chat, { continue_final_message: true })).to.equal(await after(asked.trimEnd()));
    expect(await got(open, {})).to.equal(await after(answered.trimEnd()));
    expect(await got(open, { continue_final_message: false })).to.equal(await after(answered + '[assistant] '));
    expect(await got(open, { add_generation_prompt: true })).to.equal(await after(answered + '[assistant] '));
    const call = { continue_final_message: false };
    expect(await got(open, { continue_final_message: true, add_generation_prompt: false }, call)).to.equal(
      await after(answered),
    );
    const both = got(open, { add_generation_prompt: true }, { continue_final_message: true });
    expect((await rejection(both)).message).to.include('contradict');
  });

  it('says so when the tokenizer has no chat template', async () => {
    const generator = await hashed();
    expect(await rejection(generator([{ role: 'user', content: 'Hello' }]))).to.be.instanceOf(TokenizerError);
  });

  it('streams, and stops at strings with the tokenizer it has', async () => {
    const prompt = await tokenizer.encode('Once');
    const script = await tokenizer.encode(' upon a time. And then');
    const toy = new ToyEngine(4096, scriptedLogits(4096, prompt.length, script));
    const generator = await pipeline('text-generation', toyModel(toy), { tokenizer });
    const streamer = new TextIteratorStreamer(tokenizer);
    const done = generator('Once', { streamer, max_new_tokens: 50, stop_strings: '.' });
    let text = '';
    for await (const piece of streamer) text += piece;
    expect(text).to.equal('Once upon a time.');
    expect((await done)[0]!.generated_text).to.equal(text);
  });

  it('tells a streamer of every failure, before generation too', async () => {
    const generator = await hashed();
    const chat = [{ role: 'user', content: 'Hello' }];
    for (const [input, options] of [
      [chat, {}],
      ['Once', { max_tokens: 3 }],
      ['Once', { batch_size: 0 }],
    ] as [string, object][]) {
      const failures: unknown[] = [];
      const streamer = { put: () => {}, end: () => {}, fail: (error: unknown) => void failures.push(error) };
      const error = await rejection(generator(input, { ...options, streamer }));
      expect(failures).to.deep.equal([error]);
    }
  });

  it('never chooses ids that the tokenizer does not have', async () => {
    // A model whose embedding is padded with rows that it likes best.
    const toy = new ToyEngine(4160, () => Float32Array.from({ length: 4160 }, (_, i) => i));
    const generator = await pipeline('text-generation', toyModel(toy), { tokenizer });
    const { generated_token_ids } = (await generator('Once', { return_tensors: true, return_full_text: false }))[0]!;
    expect(new Set(generated_token_ids)).to.deep.equal(new Set([4095]));
  });

  it('disposes of the model only if it loaded it', async () => {
    const model = toyModel(new ToyEngine(4096, hashedLogits(4096)));
    (await pipeline('text-generation', model, { tokenizer })).dispose();
    expect(model.disposed).to.equal(0);
  });

  it('refuses what it cannot take', async () => {
    const generator = await hashed();
    for (const input of [7, null, [], ['a', 7], [['a']], {}]) {
      expect(await rejection(generator(input as never)), JSON.stringify(input)).to.be.instanceOf(ArgumentError);
    }
    expect(await rejection(generator('a', { batch_size: 0 }))).to.be.instanceOf(ArgumentError);
    expect(await rejection(generator(''))).to.be.instanceOf(GenerationError);
    expect((await rejection(generator('a', { max_tokens: 3 } as never))).message).to.include('max_tokens');
    const model = toyModel(new ToyEngine(4096, hashedLogits(4096)));
    expect(await rejection(pipeline('text-generation', model))).to.be.instanceOf(ArgumentError);
    expect((await rejection(pipeline('translation' as never, MODEL))).message).to.include('translation');
    expect(await rejection(pipeline('text-generation', '/nowhere'))).to.be.instanceOf(TokenizerError);
  });
});

describe('pipelines of tiny-books', function () {
  this.timeout(120_000);
  before(() => useBackend('tensorflow'));

  it('writes the golden text', async () => {
    const golden = loadGolden('books-model').json.runs as {
      prompt: string;
      full_text: string;
      new_tokens: number[];
    }[];
    const generator = await pipeline('text-generation', MODEL, { engine: 'eager' });
    const options = { max_new_tokens: golden[0]!.new_tokens.length, batch_size: golden.length };
    const rows = await generator(
      golden.map((g) => g.prompt),
      options,
    );
    expect(rows.map(([row]) => row!.generated_text)).to.deep.equal(golden.map((g) => g.full_text));
    generator.dispose();
  });

  it('gives features that do not depend on the batch, and pools them', async () => {
    const extractor = await pipeline('feature-extraction', MODEL);
    const texts = ['It is a truth', 'Emma'];
    const alone = [await extractor(texts[0]!), await extractor(texts[1]!)];
    const together = await extractor(texts, { batch_size: 2 });
    expect(together.map((t) => [t.length, t[0]!.length])).to.deep.equal([
      [alone[0]![0]!.length, 256],
      [alone[1]![0]!.length, 256],
    ]);
    let worst = 0;
    together.forEach((rows, b) =>
      rows.forEach((row, t) => row.forEach((x, i) => (worst = Math.max(worst, Math.abs(x - alone[b]![0]![t]![i]!))))),
    );
    expect(worst).to.be.below(1e-4);
    const last = await extractor(texts[0]!, { pooling: 'last' });
    expect(last[0]).to.deep.equal(alone[0]![0]![alone[0]![0]!.length - 1]);
    const mean = await extractor(texts[0]!, { pooling: 'mean', normalize: true });
    expect(Math.hypot(...mean[0]!)).to.be.closeTo(1, 1e-6);
    const count = alone[0]![0]!.length;
    const sum = alone[0]![0]!.reduce((a, row) => a + row[7]! / count, 0);
    const raw = await extractor(texts[0]!, { pooling: 'mean' });
    expect(raw[0]![7]).to.be.closeTo(sum, 1e-6);
    expect(await rejection(extractor(['a', '']))).to.be.instanceOf(ArgumentError);
    expect(await rejection(extractor('a', { pooling: 'max' as never }))).to.be.instanceOf(ArgumentError);
    extractor.dispose();
  });
});
