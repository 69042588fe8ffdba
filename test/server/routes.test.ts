/** The paths beside completions and chats: states, vectors, tokens, probes, numbers; keys, names and errors on all of them. */
import { expect } from 'chai';
import * as net from 'node:net';
import { AutoTokenizer, pipeline } from '../../src/index.js';
import { responseTests, TOOL_TEMPLATE } from './responses.js';
import { MODEL, startServer, theModel, type TestServer } from './support.js';

interface State {
  id: string;
  tokens: number;
  bytes: number;
  created: number;
}

/** What a server answers to bytes that no client library would send. */
function raw(url: string, text: string): Promise<string> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve, reject) => {
    let answer = '';
    const socket = net.connect(Number(port), hostname, () => socket.write(text));
    socket.on('data', (part) => (answer += part.toString()));
    socket.on('close', () => resolve(answer));
    socket.on('error', reject);
  });
}

describe('routes of the server', function () {
  this.timeout(300_000);
  let server: TestServer;
  before(async () => {
    server = await startServer({ cors: ['https://page.example'], max_body: 20_000 }, { chat_template: TOOL_TEMPLATE });
    await server.ready;
  });
  after(() => server.close());

  responseTests(() => server);

  const complete = async (body: object): Promise<{ text: string; state?: string }> => {
    const answer = await server.post('/v1/completions', body);
    expect(answer.status, JSON.stringify(answer.body)).to.equal(200);
    const { choices, state } = answer.body as { choices: { text: string }[]; state?: string };
    return { text: choices[0]!.text, ...(state !== undefined && { state }) };
  };

  it('keep states, go on from them, fork them and forget them', async () => {
    const [head, tail] = ['It was a dark and stormy', ' night'];
    const whole = await complete({ prompt: head + tail, max_tokens: 8, temperature: 0 });
    const made = await server.post('/v1/states', { prompt: head });
    expect(made.status).to.equal(201);
    const state = made.body as unknown as State;
    expect(state.id).to.match(/^[\w-]+$/);
    expect(state.bytes).to.be.greaterThan(100_000);
    // as often as one likes: a state does not change
    for (let round = 0; round < 2; round++)
      expect((await complete({ state: state.id, prompt: tail, max_tokens: 8, temperature: 0 })).text).to.equal(
        whole.text,
      );
    const fork = (await server.post(`/v1/states/${state.id}/fork`, {})).body as unknown as State;
    expect(fork.id).not.to.equal(state.id);
    const { data } = (await server.get('/v1/states')).body as { data: State[] };
    expect(data.map(({ id }) => id)).to.include.members([state.id, fork.id]);
    expect((await server.get(`/v1/states/${state.id}`)).body).to.deep.equal(made.body);
    expect((await server.get(`/v1/states/${state.id}`, { method: 'DELETE' })).body).to.deep.include({ deleted: true });
    const json = { 'content-type': 'application/json' };
    const again = (await server.get(`/v1/states/${fork.id}/fork`, { method: 'POST', headers: json }))
      .body as unknown as State;
    expect((await server.get(`/v1/states/${again.id}`, { method: 'DELETE', headers: json })).status).to.equal(200);
    expect((await complete({ state: fork.id, prompt: tail, max_tokens: 8, temperature: 0 })).text).to.equal(whole.text);
    for (const [path, init] of [
      [`/v1/states/${state.id}`, {}],
      [`/v1/states/${state.id}`, { method: 'DELETE' }],
      [`/v1/states/${state.id}/fork`, { method: 'POST' }],
      ['/v1/states/..%2F..%2Fetc%2Fpasswd', {}],
    ] as const) {
      const { status, body } = await server.get(path, init);
      expect([status, (body.error as { code: string }).code], path).to.deep.equal([404, 'state_not_found']);
    }
    const gone = await server.post('/v1/completions', { state: state.id, prompt: tail });
    expect([gone.status, (gone.body.error as { param: string }).param]).to.deep.equal([404, 'state']);
  });

  it('keep the state after an answer, and of a chat', async () => {
    const first = await complete({ prompt: 'Once upon a time', max_tokens: 4, temperature: 0, keep_state: true });
    const second = await complete({ state: first.state, prompt: '', max_tokens: 4, temperature: 0 });
    const both = await complete({ prompt: 'Once upon a time', max_tokens: 8, temperature: 0 });
    expect(first.text + second.text).to.equal(both.text);
    const events = (await server.stream('/v1/completions', { prompt: 'Once', max_tokens: 2, keep_state: true })) as {
      state?: string;
    }[];
    expect(events.at(-2)!.state).to.be.a('string');
    const messages = [{ role: 'user', content: 'Who is Emma?' }];
    const { id } = (await server.post('/v1/states', { messages })).body as unknown as State;
    const chat = { messages, max_tokens: 5, temperature: 0 };
    const [from, anew] = [
      await server.post('/v1/chat/completions', { ...chat, state: id }),
      await server.post('/v1/chat/completions', chat),
    ];
    expect(from.body.choices).to.deep.equal(anew.body.choices);
    const other = await server.post('/v1/chat/completions', {
      ...chat,
      state: id,
      messages: [{ role: 'user', content: 'Another' }],
    });
    expect([other.status, (other.body.error as { code: string }).code]).to.deep.equal([400, 'state_mismatch']);
  });

  it('give vectors as feature extraction does', async () => {
    const model = await theModel();
    const extractor = await pipeline('feature-extraction', model, {
      tokenizer: await AutoTokenizer.from_pretrained(MODEL),
    });
    const texts = ['Once upon a time', 'It was'];
    for (const pooling of ['mean', 'last'] as const) {
      const expected = await extractor(texts, { pooling, normalize: true });
      const { body } = await server.post('/v1/embeddings', { input: texts, pooling });
      const { data, usage } = body as unknown as {
        data: { embedding: number[]; index: number }[];
        usage: { prompt_tokens: number };
      };
      expect(data.map(({ index }) => index)).to.deep.equal([0, 1]);
      expect(usage.prompt_tokens).to.be.greaterThan(4);
      for (const [row, { embedding }] of data.entries())
        embedding.forEach((value, at) => expect(value).to.be.closeTo(expected[row]![at]!, 1e-5));
    }
    const coded = (await server.post('/v1/embeddings', { input: texts[0], encoding_format: 'base64' })).body as {
      data: { embedding: string }[];
    };
    const plain = (await server.post('/v1/embeddings', { input: texts[0] })).body as {
      data: { embedding: number[] }[];
    };
    const bytes = Buffer.from(coded.data[0]!.embedding, 'base64');
    const floats = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
    expect(Array.from(floats)).to.deep.equal(plain.data[0]!.embedding);
    expect((await server.post('/v1/embeddings', { input: '', dimensions: 4 })).status).to.equal(400);
  });

  it('turn texts into ids and back', async () => {
    const prompt = 'Zoë’s 😀 house';
    const { body } = await server.post('/tokenize', { prompt, return_token_strs: true });
    const { tokens, count, token_strs } = body as { tokens: number[]; count: number; token_strs: string[] };
    expect([tokens.length, token_strs.length]).to.deep.equal([count, count]);
    expect((await server.post('/detokenize', { tokens })).body).to.deep.equal({ prompt });
    expect((await server.post('/detokenize', { tokens: [99999] })).status).to.equal(400);
    expect((await server.post('/tokenize', {})).status).to.equal(400);
  });

  it('tell of themselves: models, probes, numbers, and a description of every path', async () => {
    const { data } = (await server.get('/v1/models')).body as { data: { id: string; object: string }[] };
    expect(data[0]).to.include({ id: 'tiny-books', object: 'model', chat: true });
    expect((await server.get('/v1/models/tiny-books')).body).to.deep.equal(data[0]);
    expect((await server.get('/v1/models/other')).status).to.equal(404);
    expect((await server.get('/ready')).body).to.deep.equal({ status: 'ready' });
    const { text } = (await server.get('/metrics')).body as { text: string };
    for (const name of [
      ...[
        'warmup_seconds',
        'num_requests_running',
        'num_requests_waiting',
        'kv_cache_usage_perc',
        'state_cache_usage_perc',
        'prefix_cache_queries_total',
      ],
      ...[
        'prefix_cache_hits_total',
        'prompt_tokens_total',
        'generation_tokens_total',
        'time_to_first_token_seconds_bucket',
      ],
      ...['inter_token_latency_seconds_bucket', 'e2e_request_latency_seconds_bucket', 'num_preemptions_total'],
    ])
      expect(text, name).to.match(new RegExp(`^mamba2:${name}\\{.*\\} [0-9.e+-]+$`, 'm'));
    const { openapi, paths } = (await server.get('/openapi.json')).body as {
      openapi: string;
      paths: Record<string, { post?: { requestBody: object } }>;
    };
    expect(openapi).to.match(/^3\.1/);
    for (const path of [
      ...['/v1/completions', '/v1/chat/completions', '/v1/responses'],
      ...['/v1/embeddings', '/v1/states', '/tokenize'],
    ])
      expect(paths[path]?.post?.requestBody, path).to.be.an('object');
  });

  it('answer every failure in one shape', async () => {
    const cases: [Promise<{ status: number; body: Record<string, unknown> }>, number][] = [
      [server.get('/nothing'), 404],
      [server.get('/v1/completions'), 405],
      [server.get('/v1/%zz'), 400],
      [
        server.get('/v1/completions', { method: 'POST', body: '{', headers: { 'content-type': 'application/json' } }),
        400,
      ],
      [
        server.get('/v1/completions', { method: 'POST', body: '', headers: { 'content-type': 'application/json' } }),
        400,
      ],
      [server.get('/v1/completions', { method: 'POST', body: 'x=1' }), 415],
      [server.post('/v1/completions', { prompt: 'x'.repeat(30_000) }), 413],
      [server.post('/v1/completions', []), 400],
      [server.get('/v1/states/x/fork', { method: 'POST', body: 'x' }), 415],
    ];
    for (const [answer, expected] of cases) {
      const { status, body } = await answer;
      expect(status, JSON.stringify(body)).to.equal(expected);
      expect(Object.keys(body)).to.deep.equal(['error']);
      expect(body.error).to.have.all.keys('message', 'type', 'param', 'code');
    }
    for (const [text, status] of [
      ['NONSENSE\r\n\r\n', 400],
      [`GET /health HTTP/1.1\r\nhost: localhost\r\nx: ${'y'.repeat(20_000)}\r\n\r\n`, 431],
    ] as const) {
      const answer = await raw(server.url, text);
      expect(answer).to.match(new RegExp(`^HTTP/1.1 ${status} `));
      expect(JSON.parse(answer.split('\r\n\r\n')[1]!)).to.have.nested.property('error.message');
    }
  });

  it('let pages of allowed origins in, and no others; no name but their own leads to them', async () => {
    const from = async (origin: string): Promise<string | null> =>
      (await server.get('/v1/models', { headers: { origin } })).headers.get('access-control-allow-origin');
    expect(await from('https://page.example')).to.equal('https://page.example');
    expect(await from('https://evil.example')).to.equal(null);
    const { port } = new URL(server.url);
    for (const [host, status] of [
      [`localhost:${port}`, 200],
      ['evil.example', 403],
      [`127.0.0.1:${port}`, 200],
    ] as const)
      expect(await raw(server.url, `GET /v1/models HTTP/1.1\r\nhost: ${host}\r\nconnection: close\r\n\r\n`)).to.match(
        new RegExp(`^HTTP/1.1 ${status} `),
      );
  });
});

describe('a server with keys', function () {
  this.timeout(300_000);
  let server: TestServer;
  before(async () => {
    server = await startServer({ api_keys: ['first-key', 'second-key'], page: false });
  });
  after(() => server.close());

  it('asks every path for one, but for probes and numbers', async () => {
    const bearer = (key: string): RequestInit => ({ headers: { authorization: key } });
    for (const [key, status] of [
      ['Bearer first-key', 200],
      ['bearer second-key', 200],
      ['Bearer first-ke', 401],
      ['Bearer ', 401],
      ['Basic first-key', 401],
    ] as const)
      expect((await server.get('/v1/models', bearer(key))).status, key).to.equal(status);
    for (const path of [
      '/v1/completions',
      '/v1/chat/completions',
      '/v1/responses',
      '/v1/embeddings',
      '/v1/states',
      '/tokenize',
      '/detokenize',
    ]) {
      const { status, body, headers } = await server.post(path, {});
      expect([status, (body.error as { code: string }).code], path).to.deep.equal([401, 'invalid_api_key']);
      expect(headers.get('x-should-retry')).to.equal('false');
    }
    for (const path of ['/health', '/metrics', '/openapi.json'])
      expect((await server.get(path)).status, path).to.equal(200);
    expect((await server.get('/')).status).to.equal(401);
  });
});
