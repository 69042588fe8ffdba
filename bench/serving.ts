/**
 * Clients that come at once, over HTTP: `mamba2 serve` beside llama.cpp's `llama-server` with the same weights, in turn, each client with so many tokens in
 * and out, greedy. Tokens per second of one client and of all.
 *
 *   npm run bench -- serving --model DIR [--gguf FILE --llama-server PROGRAM] [--clients 8 --in 64 --out 128 --rounds 3] [--products bfloat16] [--json]
 */
import { type ChildProcess, spawn } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import * as readline from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { markdownTable, type Spread, spread } from './statistics.js';

const { values: args } = parseArgs({
  args: process.argv.slice(3),
  options: {
    model: { type: 'string' },
    gguf: { type: 'string' },
    'llama-server': { type: 'string', default: 'llama-server' },
    clients: { type: 'string', default: '8' },
    in: { type: 'string', default: '64' },
    out: { type: 'string', default: '128' },
    rounds: { type: 'string', default: '3' },
    products: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
});
if (args.model === undefined) throw new Error('--model: got nothing, expected a folder of a model');
const [clients, tokensIn, tokensOut, rounds] = [args.clients, args.in, args.out, args.rounds].map(Number) as [number, number, number, number]; // prettier-ignore
const threads = os.availableParallelism();

interface Server {
  name: string;
  process: ChildProcess;
  url: string;
  /** Bytes of a request; no two have the same prompt. */
  body: (ids: readonly number[]) => string;
}

/** Waits for a line of standard error that says it, and for the health that follows. */
async function listening(process: ChildProcess, text: RegExp, health: string): Promise<string> {
  const url = await new Promise<string>((resolve, reject) => {
    process.once('exit', (code) => reject(new Error(`a server ended with ${code}`)));
    readline.createInterface({ input: process.stderr! }).on('line', (line) => {
      const found = text.exec(line);
      if (found) resolve(found[1]!);
    });
  });
  for (;;) {
    const answer = await fetch(`${url}${health}`).catch(() => null);
    if (answer?.ok) return url;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

/** The model's folder with a tokenizer of whole words, which random weights have none of. */
function servedFolder(dir: string): string {
  if (fs.existsSync(path.join(dir, 'tokenizer.json'))) return dir;
  const made = fs.mkdtempSync(path.join(os.tmpdir(), 'serving-'));
  process.once('exit', () => fs.rmSync(made, { recursive: true, force: true }));
  for (const name of ['config.json', 'model.safetensors']) fs.symlinkSync(path.join(dir, name), path.join(made, name));
  const { vocab_size } = JSON.parse(fs.readFileSync(path.join(dir, 'config.json'), 'utf8')) as { vocab_size: number };
  const vocab = Object.fromEntries(Array.from({ length: vocab_size }, (_, id) => [`w${id}`, id]));
  const none = { truncation: null, padding: null, added_tokens: [], normalizer: null, post_processor: null, decoder: null }; // prettier-ignore
  const model = { type: 'WordLevel', vocab, unk_token: 'w0' };
  const tokenizer = { version: '1.0', ...none, pre_tokenizer: { type: 'WhitespaceSplit' }, model };
  fs.writeFileSync(path.join(made, 'tokenizer.json'), JSON.stringify(tokenizer));
  return made;
}

async function ours(): Promise<Server> {
  const bin = fileURLToPath(new URL('../bin/mamba2.js', import.meta.url));
  const own = ['serve', '--model', servedFolder(path.resolve(args.model!)), '--name', 'm', '--port', '0'];
  const options = ['--rows', String(clients), '--log-level', 'silent'];
  const products = args.products === undefined ? [] : ['--products', args.products];
  const child = spawn(process.execPath, [bin, ...own, ...options, ...products], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const url = await listening(child, /listening on (http\S+?),/, '/ready');
  const body = (prompt: readonly number[]): string =>
    JSON.stringify({ model: 'm', prompt, max_tokens: tokensOut, temperature: 0, logit_bias: { 0: -100 } });
  return { name: 'mamba2 serve', process: child, url, body };
}

async function llama(): Promise<Server> {
  const port = 18_080;
  const own = ['-m', args.gguf!, '--parallel', String(clients), '-t', String(threads), '--port', String(port)];
  const child = spawn(args['llama-server'], [...own, '-c', String(clients * 2 * (tokensIn + tokensOut))], { stdio: ['ignore', 'ignore', 'pipe'] }); // prettier-ignore
  const url = await listening(child, /listening on (http\S+)/, '/health');
  const body = (prompt: readonly number[]): string =>
    JSON.stringify({ prompt, max_tokens: tokensOut, temperature: 0, logit_bias: [[0, false]], cache_prompt: false });
  return { name: 'llama-server', process: child, url, body };
}

let seed = 1;
const prompt = (): number[] =>
  Array.from({ length: tokensIn }, () => 3 + ((seed = (seed * 1_103_515_245 + 12_345) & 0x7fffffff) % 40_000));

/** Tokens per second of so many clients together. */
async function rate({ url, body, name }: Server, count: number): Promise<number> {
  const began = performance.now();
  const written = await Promise.all(
    Array.from({ length: count }, async () => {
      const headers = { 'content-type': 'application/json' };
      const answer = await fetch(`${url}/v1/completions`, { method: 'POST', headers, body: body(prompt()) });
      const got = (await answer.json()) as { usage?: { completion_tokens: number } };
      if (!answer.ok || !got.usage) throw new Error(`${name}: ${answer.status} ${JSON.stringify(got)}`);
      return got.usage.completion_tokens;
    }),
  );
  const tokens = written.reduce((a, b) => a + b, 0);
  if (tokens < count * tokensOut) throw new Error(`${name}: ${tokens} tokens, expected ${count * tokensOut}`);
  return (1000 * tokens) / (performance.now() - began);
}

const servers = [await ours(), ...(args.gguf === undefined ? [] : [await llama()])];
const counts = [1, clients];
const rates = servers.map(() => counts.map((): number[] => []));
try {
  for (const server of servers) for (const count of counts) await rate(server, count);
  for (let round = 0; round < rounds; round++)
    for (const [i, server] of servers.entries())
      for (const [j, count] of counts.entries()) rates[i]![j]!.push(await rate(server, count));
} finally {
  for (const { process } of servers) process.kill('SIGKILL');
}
const table = servers.map(({ name }, i) => {
  const [one, all] = rates[i]!.map(spread) as [Spread, Spread];
  return { name, one, all, times: all.median / one.median };
});
if (args.json) console.log(JSON.stringify({ clients, tokens_in: tokensIn, tokens_out: tokensOut, table }));
else {
  const cell = ({ median, min, max }: Spread): string => `${median.toFixed(1)} (${min.toFixed(1)}–${max.toFixed(1)})`;
  console.log(
    markdownTable(
      ['server', 'tokens/s, one client', `${clients} clients`, 'times'],
      table.map(({ name, one, all, times }) => [name, cell(one), cell(all), times.toFixed(2)]),
    ),
  );
}
