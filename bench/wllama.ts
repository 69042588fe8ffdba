/**
 * A page with int4 weights beside wllama (llama.cpp in WebAssembly) with Q4_0, of the same random weights and dimensions, in one page of Chromium, in turn.
 *
 *   npm run bench -- wllama [--model 130m] [--threads 1,2] [--tokens 48] [--prompt 256] [--group 128] [--rounds 5] [--python PATH] [--json FILE]
 *
 * Both in a worker. Decoding: tokens a second after a prompt of one; of ours with the prompt and all messages, of wllama by its own timings without them.
 * Prompt: tokens a second up to the first id. First token: seconds from nothing loaded, with the model's file in the page's cache, to one id after a prompt
 * of 16, in a fresh page. Every matrix is of four bits in both, the embedding (which is the head) too; the head is of the last position in both.
 * wllama is fetched from npm in the version below: 15 MB that only this needs.
 */
import { build } from 'esbuild';
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { parseArgs } from 'node:util';
import { chromium, type Page } from 'playwright-core';
import { Int4WeightOnlyConfig } from '../src/quant/index.js';
import { AutoModelForCausalLM } from '../src/models/auto/index.js';
import { cacheRoot, selectBackend } from '../src/runtime/index.js';
import { findChromium, serve } from '../test/support/pages.js';
import { machine, otherLoad } from './machine.js';
import { gguf } from './peers/llamacpp.js';
import { provideCheckpoint } from './random_checkpoint.js';
import { markdownTable, ratios, spread } from './statistics.js';

/** The newest of November 2026. */
const WLLAMA = '3.13.0';

const { values: args } = parseArgs({
  args: process.argv.slice(3),
  options: {
    model: { type: 'string', default: '130m' },
    threads: { type: 'string', default: '1,2' },
    tokens: { type: 'string', default: '48' },
    prompt: { type: 'string', default: '256' },
    group: { type: 'string', default: '128' },
    rounds: { type: 'string', default: '5' },
    tasks: { type: 'string', default: 'decode,prefill,first' },
    engines: { type: 'string', default: 'ours,wllama' },
    python: { type: 'string', default: process.env.MAMBA2_BENCH_PYTHON ?? 'python3' },
    json: { type: 'string' },
  },
});
const rounds = Number(args.rounds);
const bench = path.join(cacheRoot(), 'bench');

/** The package from npm, unpacked once. */
function wllamaFolder(): string {
  const folder = path.join(bench, `wllama-${WLLAMA}`);
  if (fs.existsSync(folder)) return folder;
  fs.mkdirSync(`${folder}.part`, { recursive: true });
  const [{ filename }] = JSON.parse(
    execFileSync('npm', ['pack', '--json', `@wllama/wllama@${WLLAMA}`], { cwd: `${folder}.part`, encoding: 'utf8' }),
  ) as [{ filename: string }];
  execFileSync('tar', ['xzf', filename, '--strip-components=1'], { cwd: `${folder}.part` });
  fs.renameSync(`${folder}.part`, folder);
  return folder;
}

/** Our weights in four bits, written once. */
async function int4Folder(checkpoint: string): Promise<string> {
  const folder = `${checkpoint}-int4-${args.group}`;
  if (fs.existsSync(folder)) return folder;
  await selectBackend('wasm');
  const model = await AutoModelForCausalLM.from_pretrained(checkpoint, {
    quantization_config: new Int4WeightOnlyConfig({
      group_size: Number(args.group),
      include_input_output_embeddings: true,
    }),
  });
  await model.save_pretrained(folder);
  model.dispose();
  return folder;
}

type Engine = 'ours' | 'wllama';
type Task = 'decode' | 'prefill' | 'first';

/** In a page, which the engines are loaded into first unless that is what is timed. */
async function timed(page: Page, engine: Engine, task: Task, threads: number): Promise<number> {
  const [tokens, prompt] = [Number(args.tokens), Number(args.prompt)];
  const code = {
    decode: `engines.${engine}.decode(${tokens})`,
    prefill: `engines.${engine}.prefill(${prompt})`,
    first: `firstToken('${engine}', ${threads}).then((ms) => ms / 1000)`,
  }[task];
  return page.evaluate<number>(code);
}

const executablePath = findChromium();
if (executablePath === null) throw new Error('There is no Chromium: apt-get install chromium, or CHROMIUM=FILE');
const work = { model: args.model, dtype: 'bfloat16', checkpoint: path.join(bench, `${args.model}-bfloat16`) } as const;
await provideCheckpoint(work);
const folder = await int4Folder(work.checkpoint);
const names = args.engines.split(',') as Engine[];
const file = names.includes('wllama') ? gguf(work.checkpoint, 'Q4_0', args.python) : '';
execFileSync('node', ['scripts/build_web.mjs'], { stdio: 'inherit' });
const page = path.join(bench, 'page');
await build({
  ...{ entryPoints: ['bench/wllama/page.js'], bundle: true, format: 'esm', outdir: page, external: ['/wllama/*'] },
  logLevel: 'error',
});

const server = await serve({
  folders: { web: 'dist/web', models: bench, wllama: names.includes('wllama') ? wllamaFolder() : '', page },
  pages: { '/': '<!doctype html><script type="module" src="/page/page.js"></script>' },
  isolated: true,
});
const profile = fs.mkdtempSync(path.join(bench, 'profile-'));
// one profile, in which what was fetched stays
const browser = await chromium.launchPersistentContext(profile, {
  executablePath,
  args: ['--no-sandbox', '--disable-dev-shm-usage'],
});
const address = `${server.url}/?ours=${path.basename(folder)}&gguf=${path.relative(bench, file)}`;

async function opened(): Promise<Page> {
  const page = await browser.newPage();
  page.on('pageerror', (error) => process.stderr.write(`${error}\n`));
  page.on('console', (message) => message.type() === 'error' && process.stderr.write(`${message.text()}\n`));
  await page.goto(address);
  await page.waitForFunction('globalThis.ready', undefined, { timeout: 120_000 });
  return page;
}

const tasks = args.tasks.split(',') as Task[];
const results = [];
const loads: number[] = [];
for (const threads of args.threads.split(',').map(Number)) {
  const both = await opened();
  for (const engine of names) await both.evaluate(`engines.${engine}.load(${threads})`);
  for (const task of tasks) {
    const figures: Record<Engine, number[]> = { ours: [], wllama: [] };
    if (task !== 'first') for (const engine of names) await timed(both, engine, task, threads);
    for (let round = 0; round < rounds; round++) {
      loads.push(await otherLoad());
      for (const engine of round % 2 === 0 ? names : [...names].reverse()) {
        const own = task === 'first' ? await opened() : both;
        figures[engine].push(await timed(own, engine, task, threads));
        if (own !== both) await own.close();
      }
      process.stderr.write(
        `${task}, ${threads} threads: ${names.map((name) => `${name} ${figures[name].at(-1)!.toFixed(2)}`).join(', ')}\n`,
      );
    }
    results.push({ task, threads, figures });
  }
  await both.close();
}
await browser.close();
await server.close();
fs.rmSync(profile, { recursive: true, force: true });

const shown = results.map(({ task, threads, figures }) => {
  const cells = names.map((name) => {
    const { median, min, max } = spread(figures[name]);
    return `${median.toFixed(2)} (${min.toFixed(2)}–${max.toFixed(2)})`;
  });
  const [a, b] = task === 'first' ? [figures.wllama, figures.ours] : [figures.ours, figures.wllama];
  const ratio = names.length === 2 ? [ratios(a, b).median.toFixed(2)] : [];
  const what = { decode: 'decode, tokens/s', prefill: `prompt of ${args.prompt}, tokens/s`, first: 'first token, s' };
  return [what[task], String(threads), ...cells, ...ratio];
});
const load = spread(loads);
process.stdout.write(
  `${args.model}, medians of ${rounds} rounds (least–most); wllama ${WLLAMA}, Chromium; cores taken by other programs: ` +
    `${load.median.toFixed(2)} (${load.min.toFixed(2)}–${load.max.toFixed(2)})\n\n` +
    `${markdownTable(['', 'threads', ...names, ...(names.length === 2 ? ['ours is faster by'] : [])], shown)}\n`,
);
if (args.json) {
  fs.writeFileSync(
    `${args.json}.part`,
    `${JSON.stringify({ ...machine(), wllama: WLLAMA, results, loads }, null, 2)}\n`,
  );
  fs.renameSync(`${args.json}.part`, args.json);
}
