/** /v1/completions and /v1/chat/completions: what they answer is what generate() writes. */
import { expect } from 'chai';
import { AutoTokenizer, type Tokenizer } from '../../src/index.js';
import { loadGolden } from '../support/goldens.js';
import { MODEL, startServer, TEMPLATE, theModel, type TestServer } from './support.js';

interface Choice {
  index: number;
  text: string;
  finish_reason: string | null;
  logprobs: {
    tokens: string[];
    token_logprobs: (number | null)[];
    top_logprobs: (Record<string, number> | null)[];
    text_offset: number[];
  } | null;
}
interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
  prompt_tokens_details: { cached_tokens: number };
}
interface Completion {
  id: string;
  object: string;
  model: string;
  choices: Choice[];
  usage?: Usage | null;
}

describe('/v1/completions', function () {
  this.timeout(300_000);
  let server: TestServer;
  let tokenizer: Tokenizer;
  before(async () => {
    server = await startServer();
    tokenizer = await AutoTokenizer.from_pretrained(MODEL);
  });
  after(() => server.close());

  const { runs } = loadGolden('books-model').json as unknown as {
    runs: { prompt: string; new_tokens: number[]; full_text: string }[];
  };
  const golden = runs[0]!;
  const request = { model: 'tiny-books', prompt: golden.prompt, max_tokens: golden.new_tokens.length, temperature: 0 };
  const complete = async (body: object): Promise<Completion> => {
    const { status, body: answer } = await server.post('/v1/completions', body);
    expect(status, JSON.stringify(answer)).to.equal(200);
    return answer as unknown as Completion;
  };

  it('writes the golden text', async () => {
    const { choices, usage, object, model } = await complete(request);
    expect(golden.prompt + choices[0]!.text).to.equal(golden.full_text);
    expect(choices[0]).to.include({ index: 0, finish_reason: 'length', logprobs: null });
    const prompt_tokens = (await tokenizer.encode(golden.prompt)).length;
    expect(usage).to.deep.include({
      prompt_tokens,
      completion_tokens: golden.new_tokens.length,
      total_tokens: prompt_tokens + golden.new_tokens.length,
    });
    expect([object, model]).to.deep.equal(['text_completion', 'tiny-books']);
  });

  it('streams the same, with one finish reason for each choice and usage where it is asked for', async () => {
    const events = await server.stream('/v1/completions', { ...request, stream_options: { include_usage: true } });
    expect(events.at(-1)).to.equal('[DONE]');
    const chunks = events.slice(0, -1) as Completion[];
    const last = chunks.pop()!;
    expect(last.choices).to.deep.equal([]);
    expect(last.usage!.completion_tokens).to.equal(golden.new_tokens.length);
    expect(golden.prompt + chunks.map(({ choices }) => choices[0]!.text).join('')).to.equal(golden.full_text);
    expect(chunks.map(({ choices }) => choices[0]!.finish_reason).filter((reason) => reason !== null)).to.deep.equal([
      'length',
    ]);
    expect(chunks.at(-1)!.choices[0]!.finish_reason).to.equal('length');
    expect(chunks.every(({ usage }) => usage === null)).to.equal(true);
    const bare = (await server.stream('/v1/completions', { ...request, max_tokens: 2 })) as Completion[];
    expect(bare.slice(0, -1).every((chunk) => chunk.choices.length === 1 && !('usage' in chunk))).to.equal(true);
  });

  it('takes several prompts, as texts and as ids, and gives n choices of each', async () => {
    const prompts = ['Once upon a time', 'It was a dark'];
    const ids = await Promise.all(prompts.map((prompt) => tokenizer.encode(prompt)));
    const body = { max_tokens: 6, temperature: 0.9, seed: 5, n: 2 };
    const texts = await complete({ ...body, prompt: prompts });
    expect(texts.choices.map(({ index }) => index)).to.deep.equal([0, 1, 2, 3]);
    expect(texts.choices[0]!.text).not.to.equal(texts.choices[1]!.text);
    const same = await complete({ ...body, prompt: ids });
    expect(same.choices).to.deep.equal(texts.choices);
    expect(texts.usage!.completion_tokens).to.be.greaterThan(6).and.at.most(24);
    // as generate() samples them
    const out = await (
      await theModel()
    ).generate({
      ...{
        input_ids: [ids[0]!],
        attention_mask: [ids[0]!.map(() => 1)],
        do_sample: true,
        temperature: 0.9,
        top_k: 0,
        seed: 5,
      },
      ...{ num_return_sequences: 2, max_new_tokens: 6, return_dict_in_generate: true, tokenizer },
    });
    for (const choice of [0, 1]) {
      const all = await tokenizer.decode([...ids[0]!, ...out.new_tokens[choice]!], { skip_special_tokens: true });
      expect(prompts[0]! + texts.choices[choice]!.text).to.equal(all);
    }
    const greedy = await complete({ prompt: 'Once', max_tokens: 3, temperature: 0, n: 3 });
    expect(new Set(greedy.choices.map(({ text }) => text)).size).to.equal(1);
    expect(greedy.choices).to.have.length(3);
  });

  it('ends before a stop string, which no piece of a stream has a part of', async () => {
    const { choices } = await complete(request);
    const text = choices[0]!.text;
    const stop = text.slice(9, 14);
    const until = text.slice(0, text.indexOf(stop));
    const whole = (await complete({ ...request, stop: [stop, 'never written'] })).choices[0]!;
    expect(whole).to.deep.include({ text: until, finish_reason: 'stop' });
    const events = (await server.stream('/v1/completions', { ...request, stop })) as Completion[];
    const pieces = events.slice(0, -1).map((chunk) => chunk.choices[0]!);
    expect(pieces.map((piece) => piece.text).join('')).to.equal(until);
    expect(pieces.at(-1)!.finish_reason).to.equal('stop');
  });

  it('tells log-probabilities of what it writes, and with echo of the prompt', async () => {
    const prompt = 'Once upon a time';
    const ids = await tokenizer.encode(prompt);
    const { choices } = await complete({ prompt, max_tokens: 3, temperature: 0, logprobs: 2, echo: true });
    const { text, logprobs } = choices[0]!;
    expect(text.startsWith(prompt)).to.equal(true);
    expect(logprobs!.tokens.join('')).to.equal(text);
    expect(logprobs!.text_offset.map((at, i) => text.slice(at, at + logprobs!.tokens[i]!.length))).to.deep.equal(
      logprobs!.tokens,
    );
    expect(logprobs!.token_logprobs[0]).to.equal(null);
    // the model's own forward pass says the same of every token
    const all = [...ids, ...(await tokenizer.encode(text)).slice(ids.length)];
    const { logits } = (await theModel()).forward({ input_ids: [all], attention_mask: [all.map(() => 1)] });
    const rows = (await logits.array())[0]!;
    logits.dispose();
    for (let at = 1; at < all.length; at++) {
      const row = rows[at - 1]!;
      const sum = Math.log(row.reduce((total, value) => total + Math.exp(value), 0));
      // bfloat16 weights in a compiled program against float32 ones op by op
      expect(logprobs!.token_logprobs[at]).to.be.closeTo(row[all[at]!]! - sum, 0.05);
      expect(Object.keys(logprobs!.top_logprobs[at]!)).to.have.length(2);
    }
    const asked = await complete({ prompt, max_tokens: 0, echo: true, logprobs: 0 });
    expect(asked.choices[0]!.logprobs!.tokens).to.have.length(ids.length);
    expect(asked.choices[0]).to.include({ text: prompt });
  });

  it('refuses by name what it cannot do', async () => {
    for (const [fields, param, message] of [
      [{ suffix: ' end' }, 'suffix', /not supported: the model reads from left to right/],
      [{ best_of: 3 }, 'best_of', /not supported/],
      [{ top_a: 1 }, 'top_a', /Unknown field/],
      [{ n: 1000 }, 'n', /at most 16/],
      [{ max_tokens: 1e6 }, 'max_tokens', /at most 4096/],
      [{ temperature: 'hot' }, 'temperature', /number or null/],
      [{ temperature: 3 }, 'temperature', /<= 2/],
      [{ prompt: [5000] }, 'prompt', /the id 5000/],
      [{ prompt: [] }, 'prompt', /empty/],
      [{ prompt: '' }, 'prompt', /empty/],
      [{ prompt: ['a', 5] }, 'prompt', /mixes/],
      [{ prompt: undefined }, 'prompt', /Missing/],
      [{ prompt: '\ud800' }, 'prompt', /Unicode/],
      [{ logit_bias: { x: 1 } }, 'logit_bias', /ids from 0 to/],
      [{ logprobs: 50 }, 'logprobs', /<= 20/],
      [{ stop: [''] }, 'stop[0]', /fewer than 1/],
    ] as const) {
      const { status, body } = await server.post('/v1/completions', { ...request, ...fields });
      const { error } = body as { error: { param: string; message: string; type: string } };
      expect([status, error.param, error.type], JSON.stringify(error)).to.deep.equal([
        400,
        param,
        'invalid_request_error',
      ]);
      expect(error.message).to.match(message);
    }
    const off = await server.post('/v1/completions', { ...request, max_tokens: 1, suffix: null, best_of: 1 });
    expect(off.status).to.equal(200);
    const other = await server.post('/v1/completions', { ...request, model: 'gpt-4' });
    expect([other.status, (other.body.error as { code: string }).code]).to.deep.equal([404, 'model_not_found']);
  });
});

interface ChatChunk {
  object: string;
  choices: {
    index: number;
    delta: { role?: string; content?: string };
    finish_reason: string | null;
    logprobs: unknown;
  }[];
}

describe('/v1/chat/completions', function () {
  this.timeout(300_000);
  let server: TestServer;
  before(async () => {
    server = await startServer({}, { chat_template: TEMPLATE });
  });
  after(() => server.close());
  const messages = [{ role: 'user', content: 'Who is Emma?' }];

  it('answers as the prompt of the template is gone on with, whole and streamed', async () => {
    const body = { messages, temperature: 0, max_completion_tokens: 8 };
    const { body: chat } = await server.post('/v1/chat/completions', body);
    const { choices, object } = chat as unknown as {
      object: string;
      choices: { message: { role: string; content: string }; finish_reason: string }[];
    };
    expect(object).to.equal('chat.completion');
    const { body: plain } = await server.post('/v1/completions', {
      prompt: '<|user|>\nWho is Emma?\n<|assistant|>\n',
      temperature: 0,
      max_tokens: 8,
    });
    expect(choices[0]!.message).to.deep.equal({
      role: 'assistant',
      content: (plain as unknown as Completion).choices[0]!.text,
      refusal: null,
    });
    const chunks = (await server.stream('/v1/chat/completions', body)).slice(0, -1) as ChatChunk[];
    expect(chunks[0]!.choices[0]!.delta).to.deep.equal({ role: 'assistant', content: '' });
    expect(chunks.map((chunk) => chunk.choices[0]!.delta.content ?? '').join('')).to.equal(choices[0]!.message.content);
    expect(chunks.map((chunk) => chunk.choices[0]!.finish_reason).filter((reason) => reason !== null)).to.deep.equal([
      'length',
    ]);
  });

  it('takes parts of text, and tells log-probabilities', async () => {
    const parts = [
      {
        role: 'user',
        content: [
          { type: 'text', text: 'Who is ' },
          { type: 'text', text: 'Emma?' },
        ],
      },
    ];
    const body = { temperature: 0, max_tokens: 4, logprobs: true, top_logprobs: 3 };
    const [one, two] = await Promise.all(
      [messages, parts].map((each) => server.post('/v1/chat/completions', { ...body, messages: each })),
    );
    // logprobs apart: sums run in another order where a part of the prompt was known
    const texts = [one!, two!].map(({ body: { choices } }) =>
      (choices as { message: object }[]).map(({ message }) => message),
    );
    expect(texts[0]).to.deep.equal(texts[1]);
    const { logprobs, message } = (
      one!.body.choices as {
        message: { content: string };
        logprobs: { content: { token: string; bytes: number[]; top_logprobs: object[] }[] };
      }[]
    )[0]!;
    expect(logprobs.content.map(({ token }) => token).join('')).to.equal(message.content);
    expect(Buffer.from(logprobs.content.flatMap(({ bytes }) => bytes)).toString()).to.equal(message.content);
    expect(logprobs.content.every(({ top_logprobs }) => top_logprobs.length === 3)).to.equal(true);
  });

  it('refuses by name what it cannot do', async () => {
    for (const [fields, param] of [
      [{ messages: [] }, 'messages'],
      [{ messages: [{ role: 'user' }] }, 'messages[0].content'],
      [{ messages: [{ role: 'king', content: 'x' }] }, 'messages[0].role'],
      [
        { messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'x' } }] }] },
        'messages[0].content[0].type',
      ],
      [{ functions: [] }, 'functions'],
      [{ tools: [{ type: 'function', function: { name: 'f' } }] }, 'tools'],
      [{ max_tokens: 3, max_completion_tokens: 4 }, 'max_tokens'],
      [{ top_logprobs: 3 }, 'top_logprobs'],
      [{ reasoning_effort: 'high' }, 'reasoning_effort'],
    ] as const) {
      const { status, body } = await server.post('/v1/chat/completions', Object.assign({ messages }, fields));
      const { error } = body as { error: { param: string } };
      expect([status, error.param], JSON.stringify(error)).to.deep.equal([400, param]);
    }
  });

  it('says what to use instead where the model has no chat template', async () => {
    await server.close(); // one at a time over one model
    const plain = await startServer();
    try {
      const { status, body } = await plain.post('/v1/chat/completions', { messages });
      expect([status, (body.error as { param: string }).param]).to.deep.equal([400, 'messages']);
      expect((body.error as { message: string }).message).to.match(/no chat template.*\/v1\/completions/);
    } finally {
      await plain.close();
    }
  });
});
