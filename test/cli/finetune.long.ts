/** Signals at moments of all kinds in `mamba2 finetune`: while it starts, within steps, while it saves. It always goes on, to the same adapter. */
import { spawn } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { expect } from 'chai';
import { STOP_SIGNALS } from '../../src/base/stop_signals.js';
import { BIN } from './support.js';

/** So many that all signals come before the last. */
const STEPS = 160;

interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
  err: string;
}

/** Runs until done, or until the signals have ended it: each so many milliseconds after that many snapshots are there. */
function finetune(
  output: string,
  kill: { signal: NodeJS.Signals; snapshots: number; delay: number; times: number } | null,
): Promise<Ended> {
  const args = ['finetune', '--model', 'models/tiny-books-mamba2', '--train', 'examples/quotes.jsonl'];
  args.push('--text-field', 'quote', '--lora', '2', '--max-steps', String(STEPS), '--max-length', '16');
  args.push('--batch-size', '2', '--eval-share', '0', '--engine', 'eager', '--save-steps', '2', '--output', output);
  if (fs.existsSync(output) && snapshots(output).length > 0) args.push('--resume');
  const child = spawn(process.execPath, [BIN, ...args], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, NODE_OPTIONS: '' },
  });
  let err = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text));
  const began = snapshots(output).length && latest(output);
  const watch = setInterval(() => {
    if (!kill || latest(output) < began + 2 * kill.snapshots) return;
    clearInterval(watch);
    for (let i = 0; i < kill.times; i++) setTimeout(() => child.kill(kill.signal), kill.delay + 60 * i);
  }, 5);
  return new Promise((resolve) =>
    child.on('close', (code, signal) => {
      clearInterval(watch);
      resolve({ code, signal, err });
    }),
  );
}

function snapshots(output: string): string[] {
  return fs.existsSync(output) ? fs.readdirSync(output).filter((name) => /^checkpoint-\d+$/.test(name)) : [];
}

const latest = (output: string): number => Math.max(0, ...snapshots(output).map((name) => Number(name.slice(11))));

/** Files whose names say that they are half written or held. */
function left(output: string): string[] {
  if (!fs.existsSync(output)) return [];
  const names = fs.readdirSync(output, { recursive: true, encoding: 'utf8' });
  return names.filter((name) => /\.part$|\.lock$|\.old$/.test(name));
}

describe('mamba2 finetune and signals', function () {
  this.timeout(1_800_000);
  let root: string;
  before(() => (root = fs.mkdtempSync(path.join(os.tmpdir(), 'finetune-'))));
  after(() => fs.rmSync(root, { recursive: true }));

  it('goes on after each, and ends as an unbroken run does', async () => {
    const [whole, broken] = [path.join(root, 'whole'), path.join(root, 'broken')];
    expect((await finetune(whole, null)).code).to.equal(0);
    for (let i = 0; i < 9; i++) {
      const signal = STOP_SIGNALS[i % 3]!;
      // as it starts; after a snapshot; and twice, which ends it at once
      const kill = { signal, snapshots: Number(i >= 3), delay: (i * 173) % 700, times: i >= 6 ? 2 : 1 };
      const { code, signal: by, err } = await finetune(broken, kill);
      expect(err, 'no stack trace').not.to.match(/^\s+at /m);
      expect(code !== null || by === signal, `${signal}: ${code} ${by}`).to.equal(true);
      expect(left(broken), `after ${signal}`).to.deep.equal([]);
      expect(latest(broken), 'it was under way').to.be.below(STEPS);
    }
    const last = await finetune(broken, null);
    expect(last.code, last.err).to.equal(0);
    const adapter = (dir: string): Buffer => fs.readFileSync(path.join(dir, 'adapter', 'adapter_model.safetensors'));
    expect(adapter(broken).equals(adapter(whole)), 'the same adapter').to.equal(true);
  });
});
