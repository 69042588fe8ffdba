import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { expect } from 'chai';
import { loadGolden } from '../support/goldens.js';
import { type Result, sharedMamba2 } from './support.js';

const MODEL = 'models/tiny-books-mamba2';

interface Perplexity {
  tokens: number;
  perplexity: number;
}
const TEMPLATE =
  '{% for m in messages %}[{{ m.role }}] {{ m.content }}{{ eos_token }}\n{% endfor %}' +
  '{% if add_generation_prompt %}[assistant] {% endif %}';

/** A command in a terminal of its own (a pty made by script(1)), to be talked to as a person would. */
class Terminal {
  output = '';
  private readonly child: ChildProcess;
  readonly closed: Promise<number | null>;

  constructor(command: string) {
    this.child = spawn('script', ['-qfec', command, '/dev/null'], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.child.stdout!.on('data', (data: Buffer) => (this.output += data.toString('utf8')));
    this.closed = new Promise((resolve) => this.child.on('close', resolve));
  }
  type(keys: string): void {
    this.child.stdin!.write(keys);
  }
  /** Waits until something is on the screen after position `from`; returns the position behind it. */
  async see(what: string | RegExp, from = 0): Promise<number> {
    for (let tries = 0; tries < 1500; tries++) {
      const rest = this.output.slice(from);
      const match = typeof what === 'string' ? rest.indexOf(what) : rest.search(what);
      if (match >= 0) return from + match + (typeof what === 'string' ? what.length : 1);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    throw new Error(`${what} did not appear in: ${JSON.stringify(this.output.slice(from))}`);
  }
  kill(): void {
    this.child.kill('SIGKILL');
  }
}

describe('mamba2 chat', function () {
  this.timeout(120_000);
  const mamba2 = sharedMamba2();
  let dir: string;
  let terminal: Terminal | undefined;
  beforeEach(async () => {
    dir = await mkdtemp(path.join(os.tmpdir(), 'chat-'));
    await writeFile(path.join(dir, 'template.jinja'), TEMPLATE);
  });
  afterEach(async () => {
    terminal?.kill();
    await rm(dir, { recursive: true });
  });
  const options = (count: number): string[] =>
    `--model ${MODEL} --engine eager --seed 1 --chat-template ${dir}/template.jinja --max-new-tokens ${count}`.split(
      ' ',
    );
  /** A conversation of these lines, through a pipe. */
  const talk = (...lines: string[]): Promise<Result> =>
    mamba2(['chat', ...options(12)], { input: `${lines.join('\n')}\n` });

  it('holds a conversation in a terminal: three turns, one stopped, kept, begun anew', async function () {
    if (spawnSync('script', ['--version']).error) return this.skip();
    terminal = new Terminal(`"${process.execPath}" bin/mamba2.js chat ${options(400).join(' ')}`);
    let at = await terminal.see('> ');
    // The first answer is stopped while it is written; the program goes on.
    terminal.type('Who is she?\r');
    at = await terminal.see('Who is she?', at);
    at = await terminal.see(/\S{3,}\s+\S{3,}\s/, at);
    terminal.type('\x03');
    at = await terminal.see(' …', at);
    at = await terminal.see('> ', at);
    for (const question of ['And he?', 'Where?']) {
      terminal.type(`${question}\r`);
      at = await terminal.see(question, at);
      at = await terminal.see(/[a-z]{3,}/, at);
      await new Promise((resolve) => setTimeout(resolve, 300));
      terminal.type('\x03');
      at = await terminal.see('> ', at);
    }
    const file = path.join(dir, 'talk.json');
    terminal.type(`/save ${file}\r`);
    at = await terminal.see('6 messages kept', at);
    const { messages } = JSON.parse(await readFile(file, 'utf8')) as { messages: { role: string; content: string }[] };
    expect(messages.map((m) => m.role).join()).to.equal('user,assistant,'.repeat(3).slice(0, -1));
    expect(messages[2]!.content).to.equal('And he?');
    expect(messages[1]!.content.length).to.be.above(5);
    terminal.type('/reset\r');
    at = await terminal.see('begun anew', at);
    terminal.type(`/load ${file}\r`);
    at = await terminal.see('6 messages', at);
    terminal.type('/nonsense\r');
    at = await terminal.see('There is no /nonsense', at);
    // Ctrl-C at the prompt leaves at the second time.
    at = await terminal.see('> ', at);
    terminal.type('\x03');
    await terminal.see('again', at);
    terminal.type('\x03');
    expect(await terminal.closed).to.equal(0);
  });

  it('takes lines from a pipe', async () => {
    const { out, code } = await talk('Who is she?', '', 'And he?');
    expect(code).to.equal(0);
    expect(out).to.match(/\w/);
    expect(out).to.not.include('> ');
    expect((await talk('Who is she?', 'And he?', '/quit')).out).to.equal(out);
  });

  it('keeps a conversation with its state, and goes on from it in another run', async () => {
    const file = path.join(dir, 'talk.safetensors');
    const first = await talk('Who is she?', `/save ${file}`, 'And he?');
    expect(first.err).to.contain(`(2 messages kept in ${file}, with the state)`);
    const next = await talk(`/load ${file}`, 'And he?');
    expect(next.err).to.contain('(2 messages, with the state)');
    expect(next.out.length).to.be.above(5);
    expect(first.out.endsWith(next.out)).to.equal(true);
    expect((await mamba2(['state', 'show', file])).out).to.contain('Who is she?');
    const wrong = await talk(
      `/save ${dir}/none.safetensors`,
      `/load ${MODEL}/model.safetensors`,
      `/load ${dir}/no.json`,
    );
    expect(wrong.err).to.contain('no state to keep yet').and.contain('holds no state').and.contain('no.json');
    expect(wrong.code).to.equal(0);
  });

  it('says so, before it reads the weights, when the model has no chat template', async () => {
    const { err, code } = await mamba2(['chat', '--model', MODEL], { input: 'Hello\n' });
    expect(code).to.equal(1);
    expect(err).to.include('no chat template');
  });
});

describe('mamba2 eval perplexity', function () {
  this.timeout(120_000);
  const mamba2 = sharedMamba2();

  it('gives the golden perplexity', async () => {
    const dir = await mkdtemp(path.join(os.tmpdir(), 'eval-'));
    try {
      const { inputs, json } = loadGolden('books-model');
      const want = json.perplexity as { tokens: number; perplexity: number };
      const file = path.join(dir, 'passage.txt');
      await writeFile(file, inputs.passage as string);
      const options = ['--model', MODEL, '--file', file, '--max-tokens', String(want.tokens), '--json'];
      const got = JSON.parse((await mamba2(['eval', 'perplexity', ...options])).out) as Perplexity;
      expect(got.tokens).to.equal(want.tokens - 1);
      expect(Math.abs(got.perplexity / want.perplexity - 1)).to.be.below(1e-4);
    } finally {
      await rm(dir, { recursive: true });
    }
  });

  it('names the file that it cannot read', async () => {
    const { err, code } = await mamba2(['eval', 'perplexity', '--model', MODEL, '--file', '/nowhere.txt']);
    expect(code).to.equal(1);
    expect(err).to.include('/nowhere.txt');
  });
});
