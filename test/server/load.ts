/** Many requests of mixed kinds against one server: some are aborted, some malformed, and a few clients do not read what they asked for. */
import { expect } from 'chai';
import * as fs from 'node:fs';
import * as net from 'node:net';
import * as os from 'node:os';
import * as path from 'node:path';
import { Worker } from 'node:worker_threads';
import { lcg } from '../support/random.js';
import { serveProcess, type ServerProcess } from './processes.js';
import { TEMPLATE } from './support.js';

const PROMPTS = [
  ...[
    'Once upon a time',
    'It was a dark and stormy',
    'The door of the house',
    'Nobody in the village',
    'She had never',
  ],
  ...['When the ship', 'There lived in', 'My father', 'In the garden', 'A long letter', 'The captain', 'At night'],
];
const TOKENS = 6;
const SLOW = 5;
const AT_ONCE = 16;

export interface LoadReport {
  good: number;
  aborted: number;
  malformed: number;
  refused: number;
  /** Milliseconds that /health took, and times that it was asked. */
  health_p99: number;
  probes: number;
  /** Milliseconds by which the server's event loop was late, as it says itself. */
  loop_p99: number;
  /** Bytes of the server's memory when a tenth was done, and at the end. */
  memory: [number, number];
  seconds: number;
}

/** What answers of one kind must fit. */
const MOOD = {
  type: 'object',
  properties: { mood: { enum: ['glad', 'sad'] }, name: { type: 'string', pattern: '^[A-Z][a-z]{1,8}$' } },
  required: ['mood', 'name'],
  additionalProperties: false,
};

const json = { 'content-type': 'application/json' };
const MALFORMED: readonly [body: string, status: number][] = [
  ['{"prompt": ', 400],
  ['{"prompt": "x", "tempr": 1}', 400],
  ['{"prompt": [99999]}', 400],
  ['{"prompt": "x", "n": 0}', 400],
  ['[]', 400],
  ['{"prompt": "x", "suffix": "y"}', 400],
  ['{"prompt": "x", "model": "none"}', 404],
  ['{"prompt": "x", "state": "../../etc/passwd"}', 400],
  ['{"prompt": "x", "state": "state_000000000000000000000000"}', 404],
];

/** A server for the tests of a suite, which ends with them. */
export function serverForLoad(): () => ServerProcess {
  let server: ServerProcess | undefined;
  let folder: string;
  before(async () => {
    folder = fs.mkdtempSync(path.join(os.tmpdir(), 'mamba2-load-'));
    const template = path.join(folder, 'chat.jinja');
    fs.writeFileSync(template, TEMPLATE);
    const args = ['--rows', '8', '--state-cache', '32M', '--chat-template', template];
    server = await serveProcess('--dtype', 'float32', ...args);
  });
  after(() => {
    server?.child.kill('SIGKILL');
    fs.rmSync(folder, { recursive: true, force: true });
  });
  return () => server!;
}

/** Runs so many requests, and checks each answer. */
export async function load(server: ServerProcess, count: number): Promise<LoadReport> {
  const random = lcg(7);
  const { url, child } = server;
  const completion = (prompt: string, more: object = {}): object => ({
    prompt,
    max_tokens: TOKENS,
    temperature: 0,
    ...more,
  });
  const text = async (body: object): Promise<string[]> => {
    const { status, body: answer } = await server.post('/v1/completions', body);
    if (status === 429) return [];
    expect(status, JSON.stringify(answer)).to.equal(200);
    return (answer.choices as { text: string }[]).map((choice) => choice.text);
  };
  // what each prompt gives alone
  const expected = new Map<string, string>();
  const sampled = new Map<string, string[]>();
  const answered = new Map<string, string>();
  const messagesOf = (prompt: string): object[] => [{ role: 'user', content: prompt }];
  const chat = async (prompt: string, more: object): Promise<string | undefined> => {
    const { status, body: answer } = await server.post('/v1/chat/completions', {
      ...{ max_tokens: TOKENS, temperature: 0, ...more },
      messages: messagesOf(prompt),
    });
    if (status === 429) return undefined;
    expect(status, JSON.stringify(answer)).to.equal(200);
    return (answer.choices as { message: { content: string } }[])[0]!.message.content;
  };
  for (const prompt of PROMPTS) {
    answered.set(prompt, (await chat(prompt, {}))!);
    expected.set(prompt, (await text(completion(prompt)))[0]!);
    sampled.set(prompt, await text(completion(prompt, { temperature: 1, seed: 3, n: 2 })));
  }
  const report: LoadReport = {
    good: 0,
    aborted: 0,
    malformed: 0,
    refused: 0,
    health_p99: 0,
    probes: 0,
    loop_p99: 0,
    memory: [0, 0],
    seconds: 0,
  };
  const kinds: ((prompt: string) => Promise<unknown>)[] = [
    async (prompt) => {
      const [got] = await text(completion(prompt));
      if (got === undefined) report.refused++;
      else expect(got, prompt).to.equal(expected.get(prompt));
    },
    async (prompt) => {
      const got = await text(completion(prompt, { temperature: 1, seed: 3, n: 2 }));
      if (got.length === 0) report.refused++;
      else expect(got, prompt).to.deep.equal(sampled.get(prompt));
    },
    async (prompt) => {
      const events = (await server.stream('/v1/completions', completion(prompt))) as { choices: { text: string }[] }[];
      expect(events.at(-1)).to.equal('[DONE]');
      expect(
        events
          .slice(0, -1)
          .map(({ choices }) => choices[0]!.text)
          .join(''),
        prompt,
      ).to.equal(expected.get(prompt));
    },
    async (prompt) => {
      const ids = (await server.post('/tokenize', { prompt })).body.tokens as number[];
      expect((await server.post('/detokenize', { tokens: ids })).body.prompt).to.equal(prompt);
      expect((await text(completion(ids as unknown as string)))[0] ?? expected.get(prompt)).to.equal(
        expected.get(prompt),
      );
    },
    async (prompt) => {
      const { status, body } = await server.post('/v1/embeddings', { input: prompt });
      expect(status).to.equal(200);
      expect((body.data as { embedding: number[] }[])[0]!.embedding).to.have.length(256);
    },
  ];
  kinds.push(
    async (prompt) => expect((await chat(prompt, {})) ?? answered.get(prompt), prompt).to.equal(answered.get(prompt)),
    async (prompt) => {
      const format = { type: 'json_schema', json_schema: { name: 'mood', schema: MOOD } };
      const got = await chat(prompt, { temperature: 1, max_tokens: 60, response_format: format });
      if (got === undefined) return void report.refused++;
      const { mood, name } = JSON.parse(got) as { mood: string; name: string };
      expect(mood).to.be.oneOf(['glad', 'sad']);
      expect(name).to.match(/^[A-Z][a-z]{1,8}$/);
    },
    async (prompt) => {
      const body = { input: prompt, max_output_tokens: TOKENS, temperature: 0 };
      const { status, body: answer } = await server.post('/v1/responses', body);
      if (status === 429) return void report.refused++;
      expect(status, JSON.stringify(answer)).to.equal(200);
      const [item] = answer.output as { content: { text: string }[] }[];
      expect(item!.content[0]!.text, prompt).to.equal(answered.get(prompt));
    },
  );
  const abort = async (prompt: string): Promise<void> => {
    const controller = new AbortController();
    const body = JSON.stringify({
      ...completion(prompt, { max_tokens: 500, stream: random() < 0.5 }),
      logit_bias: { 0: -100 },
    });
    const answer = fetch(`${url}/v1/completions`, { method: 'POST', headers: json, body, signal: controller.signal });
    setTimeout(() => controller.abort(), random() * 80);
    await answer.then((response) => response.text()).catch(() => undefined);
    report.aborted++;
  };
  const malform = async (): Promise<void> => {
    const [body, status] = MALFORMED[Math.floor(random() * MALFORMED.length)]!;
    const answer = await fetch(`${url}/v1/completions`, { method: 'POST', headers: json, body });
    expect(answer.status, body).to.equal(status);
    expect(((await answer.json()) as { error: object }).error).to.have.all.keys('message', 'type', 'param', 'code');
    report.malformed++;
  };

  const slow = Array.from({ length: SLOW }, () => deafClient(url));
  const probe = prober(url);
  const began = performance.now();
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < count) {
      const at = next++;
      if (at === Math.floor(count / 10)) report.memory[0] = residentBytes(child.pid!);
      const prompt = PROMPTS[Math.floor(random() * PROMPTS.length)]!;
      const lot = random();
      if (lot < 0.1) await abort(prompt);
      else if (lot < 0.2) await malform();
      else {
        await kinds[Math.floor(random() * kinds.length)]!(prompt);
        report.good++;
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  report.seconds = (performance.now() - began) / 1000;
  const health = await probe();
  for (const socket of slow) socket.destroy();
  report.probes = health.length;
  report.health_p99 = health.sort((a, b) => a - b)[Math.floor(health.length * 0.99)]!;
  const numbers = ((await server.get('/metrics')).body as { text: string }).text;
  report.loop_p99 = 1000 * Number(/^nodejs_eventloop_lag_p99_seconds\{.*\} (\S+)$/m.exec(numbers)![1]);
  await untilIdle(server);
  report.memory[1] = residentBytes(child.pid!);
  // the server is as it was: each prompt gives what it gave
  for (const prompt of PROMPTS) expect((await text(completion(prompt)))[0]).to.equal(expected.get(prompt));
  return report;
}

/** Asks for /health all the time, on a thread of its own: the answers to all others are read on this one. @returns ends it, and gives the milliseconds */
function prober(url: string): () => Promise<number[]> {
  const worker = new Worker(
    `const { parentPort, workerData } = require('node:worker_threads');
    const times = [];
    let going = true;
    parentPort.once('message', () => (going = false));
    void (async () => {
      while (going) {
        const began = performance.now();
        await (await fetch(workerData + '/health')).text();
        times.push(performance.now() - began);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      parentPort.postMessage(times);
    })();`,
    { eval: true, workerData: url, execArgv: [] },
  );
  const times = new Promise<number[]>((resolve, reject) => worker.once('message', resolve).once('error', reject));
  return () => {
    worker.postMessage('end');
    return times;
  };
}

/** A client that asks for a long stream and reads none of it. */
function deafClient(url: string): net.Socket {
  const { port, hostname } = new URL(url);
  const body = JSON.stringify({
    prompt: 'Once',
    max_tokens: 4000,
    stream: true,
    logprobs: 20,
    logit_bias: { 0: -100 },
  });
  const socket = net.connect(Number(port), hostname);
  socket.on('error', () => undefined);
  socket.pause();
  socket.write(
    `POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
  return socket;
}

/** Until no row is taken and nobody waits. */
async function untilIdle(server: ServerProcess): Promise<void> {
  for (let tries = 0; tries < 400; tries++) {
    const { text } = (await server.get('/metrics')).body as { text: string };
    if (
      ['num_rows_running', 'num_requests_running', 'num_requests_waiting'].every((name) =>
        new RegExp(`^mamba2:${name}\\{.*\\} 0$`, 'm').test(text),
      )
    )
      return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  expect.fail('A row was lost');
}

function residentBytes(pid: number): number {
  const status = fs.readFileSync(`/proc/${pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)![1]) * 1024;
}
