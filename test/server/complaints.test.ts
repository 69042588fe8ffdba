/** What people complain of elsewhere (docs/server.md names the threads): a test for each. */
import { expect } from 'chai';
import { once } from 'node:events';
import { serveProcess } from './processes.js';
import { startServer, TEMPLATE, type TestServer } from './support.js';

interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  prompt_tokens_details: { cached_tokens: number };
}
interface Chunk {
  choices: { index: number; text?: string; delta?: { content?: string }; finish_reason: string | null }[];
  error?: { code: string; message: string };
}
type Chat = { choices: { message: { role: string; content: string }; finish_reason: string }[]; usage: Usage };

describe('complaints', function () {
  this.timeout(300_000);
  let server: TestServer;
  before(async () => {
    server = await startServer({ rows: 2, queue: 2, drain_seconds: 5 }, { chat_template: TEMPLATE });
    await server.ready;
  });
  after(() => server.close());

  const running = async (): Promise<{ running: number; rows: number; waiting: number; tokens: number }> => {
    const { body } = await server.get('/metrics');
    const value = (name: string): number =>
      Number(new RegExp(`^mamba2:${name}\\{[^}]*\\} (\\S+)$`, 'm').exec((body as { text: string }).text)![1]);
    return {
      running: value('num_requests_running'),
      rows: value('num_rows_running'),
      waiting: value('num_requests_waiting'),
      tokens: value('generation_tokens_total'),
    };
  };
  const until = async (condition: () => Promise<boolean>): Promise<void> => {
    for (let tries = 0; tries < 400; tries++) {
      if (await condition()) return;
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
    expect.fail('It did not come to that');
  };
  /** Goes on for long, whatever the model would rather. */
  const long = { prompt: 'Once upon a time', max_tokens: 4000, temperature: 0, logit_bias: { 0: -100 } };
  const start = async (body: object = long): Promise<{ response: Response; controller: AbortController }> => {
    const controller = new AbortController();
    const response = await fetch(`${server.url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ ...body, stream: true }),
      signal: controller.signal,
    });
    return { response, controller };
  };

  it('1: the second turn of a conversation reads its new text only', async () => {
    const messages = [{ role: 'user', content: 'It was a dark and stormy night. '.repeat(40) }];
    const body = { temperature: 0, max_tokens: 8 };
    const first = (await server.post('/v1/chat/completions', { ...body, messages })).body as unknown as Chat;
    const next = [...messages, first.choices[0]!.message, { role: 'user', content: 'And then?' }];
    const second = (await server.post('/v1/chat/completions', { ...body, messages: next })).body as unknown as Chat;
    const { prompt_tokens, prompt_tokens_details } = second.usage;
    expect(prompt_tokens_details.cached_tokens).to.be.greaterThan(first.usage.prompt_tokens * 0.9);
    expect(prompt_tokens - prompt_tokens_details.cached_tokens).to.be.lessThan(60);
  });

  it('2: a common beginning of any length is found, not only at borders of blocks', async () => {
    const system = { role: 'system', content: 'Answer as a character of a novel would, in one sentence and no more' };
    const ask = async (content: string): Promise<Usage> =>
      (
        (await server.post('/v1/chat/completions', { messages: [system, { role: 'user', content }], max_tokens: 1 }))
          .body as unknown as Chat
      ).usage;
    expect((await ask('Who is Emma?')).prompt_tokens_details.cached_tokens).to.equal(0);
    const { count } = (await server.post('/tokenize', { messages: [system], add_generation_prompt: false })).body as {
      count: number;
    };
    expect((await ask('Who is Darcy, then?')).prompt_tokens_details.cached_tokens).to.equal(count);
  });

  it('3: generation ends when the client leaves, whether it streams or waits, and its row is free', async () => {
    const { response, controller } = await start();
    await response.body!.getReader().read();
    expect((await running()).rows).to.equal(1);
    controller.abort();
    await until(async () => (await running()).rows === 0);
    const waiting = new AbortController();
    const whole = server.post('/v1/completions', long, { signal: waiting.signal }).catch((error: Error) => error.name);
    await until(async () => (await running()).rows === 1);
    waiting.abort();
    expect(await whole).to.equal('AbortError');
    await until(async () => (await running()).rows === 0);
    const { tokens } = await running();
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect((await running()).tokens).to.equal(tokens);
    expect(tokens).to.be.lessThan(4000);
  });

  it('4: the queue has an end, which is told with Retry-After', async () => {
    const started: Awaited<ReturnType<typeof start>>[] = [];
    try {
      for (let row = 0; row < 2; row++) started.push(await start());
      await until(async () => (await running()).rows === 2);
      const controller = new AbortController();
      const queued = [0, 1].map(() =>
        server.post('/v1/completions', long, { signal: controller.signal }).catch(() => null),
      );
      await until(async () => (await running()).waiting === 2);
      const { status, headers, body } = await server.post('/v1/completions', { ...long, stream: true });
      expect(status).to.equal(429);
      expect(Number(headers.get('retry-after'))).to.be.greaterThan(0);
      expect(body.error).to.include({ type: 'rate_limit_error', code: 'queue_full', param: null });
      expect((await server.get('/health')).status).to.equal(200);
      controller.abort();
      await Promise.all(queued);
    } finally {
      for (const { controller } of started) controller.abort();
    }
    await until(async () => (await running()).running === 0);
  });

  it('5: response_format is kept to, whatever the model would write; what cannot be is refused', async () => {
    const schema = {
      type: 'object',
      properties: {
        mood: { enum: ['glad', 'sad'] },
        years: { type: 'integer', minimum: 3, maximum: 99 },
        known: { type: 'boolean' },
      },
      required: ['mood', 'years', 'known'],
      additionalProperties: false,
    };
    const format = (given: object): object => ({ type: 'json_schema', json_schema: { name: 'x', schema: given } });
    const messages = [{ role: 'user', content: 'Tell me of Emma.' }];
    for (const [seed, stream] of [
      [1, false],
      [2, false],
      [3, true],
    ] as const) {
      const body = { messages, seed, max_tokens: 60, response_format: format(schema) };
      const text = stream
        ? ((await server.stream('/v1/chat/completions', body)).slice(0, -1) as Chunk[])
            .map((chunk) => chunk.choices[0]!.delta!.content ?? '')
            .join('')
        : ((await server.post('/v1/chat/completions', body)).body as unknown as Chat).choices[0]!.message.content;
      const value = JSON.parse(text) as { mood: string; years: number; known: boolean };
      expect(Object.keys(value)).to.deep.equal(['mood', 'years', 'known']);
      expect(value.mood).to.be.oneOf(['glad', 'sad']);
      expect(value.years).to.be.within(3, 99);
      expect(value.known).to.be.a('boolean');
    }
    const refused = await server.post('/v1/chat/completions', {
      messages,
      response_format: format({ type: 'string', pattern: '(?=a)' }),
    });
    expect([refused.status, (refused.body.error as { param: string }).param]).to.deep.equal([
      400,
      'response_format.json_schema.schema.pattern',
    ]);
  });

  it('6: every stream has one finish reason a choice, null before it and never empty', async () => {
    for (const body of [{ max_tokens: 5 }, { max_tokens: 40, stop: ['e'] }, { max_tokens: 3, n: 2, temperature: 1 }]) {
      const chunks = (await server.stream('/v1/completions', { prompt: 'Once upon', ...body })).slice(0, -1) as Chunk[];
      const reasons = new Map<number, (string | null)[]>();
      for (const { choices } of chunks)
        for (const { index, finish_reason } of choices)
          reasons.set(index, [...(reasons.get(index) ?? []), finish_reason]);
      expect(reasons.size).to.equal((body as { n?: number }).n ?? 1);
      for (const list of reasons.values()) {
        expect(list.slice(0, -1).every((reason) => reason === null)).to.equal(true);
        expect(list.at(-1)).to.be.oneOf(['stop', 'length']);
      }
    }
  });

  it('7 and 8: n gives n choices of one prompt that is read once, and logprobs are there', async () => {
    const prompt = 'The door of the house was open, and nobody';
    const { body } = await server.post('/v1/completions', { prompt, n: 3, max_tokens: 4, seed: 1, logprobs: 1 });
    const { choices, usage } = body as unknown as {
      choices: { text: string; logprobs: { tokens: string[]; token_logprobs: number[] } }[];
      usage: Usage;
    };
    expect(choices).to.have.length(3);
    expect(new Set(choices.map(({ text }) => text)).size).to.equal(3);
    const { count } = (await server.post('/tokenize', { prompt })).body as { count: number };
    expect(usage.prompt_tokens).to.equal(count);
    for (const { text, logprobs } of choices) {
      expect(logprobs.tokens.join('')).to.equal(text);
      expect(logprobs.token_logprobs.every((value) => value < 0)).to.equal(true);
    }
  });

  it('10: what is too long is refused, and no empty answer', async () => {
    const small = { ...(await tooLong()) };
    expect(small).to.deep.equal({ status: 413, code: 'request_too_large' });
    const { status, body } = await server.post('/v1/completions', { prompt: 'x', max_tokens: 5000 });
    expect([status, (body.error as { param: string }).param]).to.deep.equal([400, 'max_tokens']);
  });
  async function tooLong(): Promise<{ status: number; code: string }> {
    const { status, body } = await server.post('/v1/completions', { prompt: 'x'.repeat(5 * 2 ** 20) });
    return { status, code: (body.error as { code: string }).code };
  }
});

describe('complaint 9: SIGTERM', function () {
  this.timeout(300_000);

  it('lets what runs come to its end, takes nothing new, and exits with 0', async () => {
    const { child, url, post } = await serveProcess('--rows', '2');
    try {
      const body = {
        prompt: 'Once upon a time',
        max_tokens: 300,
        temperature: 0,
        logit_bias: { 0: -100 },
        stream: true,
      };
      const response = await fetch(`${url}/v1/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(body),
      });
      const reader = response.body!.getReader();
      let text = Buffer.from((await reader.read()).value!).toString();
      child.kill('SIGTERM');
      const ended = once(child, 'exit');
      let refused = await post('/v1/completions', { prompt: 'x', max_tokens: 1 });
      for (let tries = 0; refused.status === 200 && tries < 100; tries++)
        refused = await post('/v1/completions', { prompt: 'x', max_tokens: 1 });
      expect(refused.status).to.equal(503);
      expect(refused.body.error).to.include({ code: 'shutting_down' });
      expect(Number(refused.headers.get('retry-after'))).to.be.greaterThan(0);
      for (let part = await reader.read(); !part.done; part = await reader.read())
        text += Buffer.from(part.value).toString();
      expect(text.endsWith('data: [DONE]\n\n')).to.equal(true);
      expect(text).to.include('"finish_reason":"length"');
      expect((await ended)[0]).to.equal(0);
    } finally {
      child.kill('SIGKILL');
    }
  });
});
