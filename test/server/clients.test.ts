/** The official clients against the server: npm's and PyPI's openai, Vercel's ai, LangChain, and curl. */
import { expect } from 'chai';
import { execFile, execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { promisify } from 'node:util';
import { pypiPrograms } from './processes.js';
import { startServer, type TestServer } from './support.js';

const FOLDER = path.resolve('test/fixtures/server_clients');
const PYTHON_CLIENT = 'openai==2.7.1';
const run = promisify(execFile);

/** As that of the other tests, and one that knows of tools. */
const TEMPLATE =
  '{% if tools %}<|tools|>\n{{ tools | tojson }}\n{% endif %}' +
  '{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}';

type Got = Record<string, unknown>;

describe('official clients', function () {
  this.timeout(300_000);
  let server: TestServer;
  let node: string;
  let chat: string;
  let text: string;

  before(async () => {
    // packages of their own, so that nobody else needs them
    if (!fs.existsSync(path.join(FOLDER, 'node_modules', 'openai')))
      execFileSync('npm', ['ci', '--no-audit', '--no-fund'], { cwd: FOLDER, stdio: 'pipe' });
    const bundled = path.join(FOLDER, 'node_modules', `node-${process.platform}-${process.arch}`, 'bin', 'node');
    node = Number(process.versions.node.split('.')[0]) >= 22 ? process.execPath : bundled;
    server = await startServer({ api_keys: ['sesame'] }, { chat_template: TEMPLATE });
    await server.ready;
    const headers = { authorization: 'Bearer sesame' };
    const plain = async (path: string, body: object): Promise<unknown> =>
      (await server.post(path, { ...body, temperature: 0, max_tokens: 8 }, { headers })).body.choices;
    text = ((await plain('/v1/completions', { prompt: 'Once upon a time' })) as { text: string }[])[0]!.text;
    const messages = [{ role: 'user', content: 'Who is Emma?' }];
    chat = ((await plain('/v1/chat/completions', { messages })) as { message: { content: string } }[])[0]!.message
      .content;
  });
  after(async () => {
    await server?.close();
  });

  const client = async (file: string): Promise<Got> => {
    const { stdout } = await run(node, [path.join(FOLDER, file), server.url], {
      env: { ...process.env, NODE_OPTIONS: '' },
    });
    return JSON.parse(stdout) as Got;
  };
  /** The row of a client that left is free again. */
  const free = async (): Promise<void> => {
    for (let tries = 0; tries < 200; tries++) {
      const { text: numbers } = (await server.get('/metrics')).body as { text: string };
      if (/^mamba2:num_rows_running\{.*\} 0$/m.test(numbers)) return;
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
    expect.fail('A row is still taken');
  };

  it('openai of npm', async () => {
    const got = await client('openai_client.mjs');
    expect(got).to.deep.include({
      models: ['tiny-books'],
      model: 'tiny-books',
      completion: text,
      completion_stream: text,
    });
    expect(got).to.deep.include({
      chat,
      chat_stream: chat,
      chat_runner: chat,
      chat_finish: 'length',
      chat_logprobs: 8,
    });
    expect((got.chat_stream_usage as Got).completion_tokens).to.equal(8);
    expect((got.chat_usage as Got).total_tokens).to.equal((got.chat_stream_usage as Got).total_tokens);
    expect((got.formed as Got).mood).to.be.oneOf(['glad', 'sad']);
    const call = got.call as { name: string; arguments: string };
    expect([call.name, got.call_finish]).to.deep.equal(['look', 'tool_calls']);
    expect((JSON.parse(call.arguments) as Got).mood).to.be.oneOf(['glad', 'sad']);
    for (const [length, norm] of got.embeddings as [number, number][]) {
      expect(length).to.equal(256);
      expect(norm).to.be.closeTo(1, 1e-5);
    }
    expect(got.response).to.deep.equal(['incomplete', got.response_stream as string, 8]);
    expect(got.response_events).to.deep.equal([
      'response.created',
      'response.in_progress',
      'response.output_item.added',
      'response.content_part.added',
      'response.output_text.delta',
      'response.output_text.done',
      'response.content_part.done',
      'response.output_item.done',
      'response.incomplete',
    ]);
    for (const formed of [got.response_runner, got.response_formed])
      expect((formed as Got).mood).to.be.oneOf(['glad', 'sad']);
    expect(got.response_turn).to.deep.equal([true, true]);
    const [kind, called, args] = got.response_call as [string, string, Got];
    expect([kind, called]).to.deep.equal(['function_call', 'look']);
    expect(args.mood).to.be.oneOf(['glad', 'sad']);
    expect(got.retrieved).to.equal(true);
    expect(got.background).to.deep.include({ status: 400, param: 'background', code: 'unsupported_parameter' });
    expect(got.bad).to.deep.equal({
      name: 'BadRequestError',
      status: 400,
      param: 'suffix',
      code: 'unsupported_parameter',
    });
    expect(got.missing).to.deep.include({ name: 'NotFoundError', status: 404 });
    expect(got.key).to.deep.include({ name: 'AuthenticationError', status: 401 });
    expect(got.aborted).to.equal(true);
    await free();
  });

  it('ai of Vercel with @ai-sdk/openai-compatible', async () => {
    const got = await client('vercel_client.mjs');
    expect(got).to.deep.include({
      chat,
      chat_stream: chat,
      finish: 'length',
      tokens: 8,
      stream_tokens: 8,
      completion: true,
      embedding: 256,
    });
    expect((got.object as Got).mood).to.be.oneOf(['glad', 'sad']);
    expect(got.error).to.deep.include({ statusCode: 404 });
    expect((got.error as { message: string }).message).to.match(/no model 'none'/);
    await free();
  });

  it('@langchain/openai', async () => {
    const got = await client('langchain_client.mjs');
    expect(got).to.deep.include({
      chat,
      chat_stream: chat,
      tokens: 8,
      stream_tokens: 8,
      completion: text,
      embeddings: [256, 256],
      error: 404,
    });
    expect((got.object as Got).mood).to.be.oneOf(['glad', 'sad']);
  });

  it('openai of PyPI', async () => {
    const python = path.join(pypiPrograms(PYTHON_CLIENT), 'python');
    const { stdout } = await run(python, [path.join(FOLDER, 'openai_client.py'), server.url]);
    const got = JSON.parse(stdout) as Got;
    expect(got).to.deep.include({
      models: ['tiny-books'],
      completion: text,
      completion_stream: text,
      chat,
      chat_stream: chat,
    });
    expect(got).to.deep.include({
      usage: 8,
      embeddings: [256, 256],
      bad: [400, 'suffix', 'unsupported_parameter'],
      key: 401,
    });
    expect((got.object as Got).mood).to.be.oneOf(['glad', 'sad']);
    await free();
  });

  it('curl', async () => {
    const post = ['-sS', '-H', 'Authorization: Bearer sesame', '-H', 'Content-Type: application/json', '-d'];
    const body = { prompt: 'Once upon a time', max_tokens: 8, temperature: 0 };
    const whole = await run('curl', [...post, JSON.stringify(body), `${server.url}/v1/completions`]);
    expect((JSON.parse(whole.stdout) as { choices: { text: string }[] }).choices[0]!.text).to.equal(text);
    const streamed = await run('curl', [
      '-N',
      ...post,
      JSON.stringify({ ...body, stream: true }),
      `${server.url}/v1/completions`,
    ]);
    expect(streamed.stdout.endsWith('data: [DONE]\n\n')).to.equal(true);
    const failed = await run('curl', [
      '-o',
      '/dev/null',
      '-w',
      '%{http_code}',
      ...post,
      '{"prompt":',
      `${server.url}/v1/completions`,
    ]);
    expect(failed.stdout).to.equal('400');
  });
});
