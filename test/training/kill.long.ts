/** kill -9 at ten moments of a run that saves at every other step: it always goes on, and the loss curve is that of an unbroken run. */
import { spawn } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { expect } from 'chai';

const STEPS = 60;

/** Runs until done, or killed after so many steps and milliseconds. @returns whether it was done */
function run(dir: string, kill: { step: number; delay: number } | null): Promise<boolean> {
  const child = spawn(process.execPath, ['--import', 'tsx', 'test/support/endless_run.ts', dir, '2', String(STEPS)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let seen = 0;
  child.stdout.on('data', (chunk: Buffer) => {
    seen += String(chunk).split('step ').length - 1;
    if (kill && seen >= kill.step) setTimeout(() => child.kill('SIGKILL'), kill.delay);
  });
  return new Promise((resolve) => child.on('exit', (code) => resolve(code === 0)));
}

function curve(dir: string): [number, number][] {
  return fs
    .readFileSync(path.join(dir, 'log.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { step: number; loss: number })
    .map(({ step, loss }) => [step, loss]);
}

describe('a run that is killed', () => {
  it('goes on each time, with the curve of the unbroken run', async function () {
    this.timeout(600_000);
    const root = fs.mkdtempSync(path.join(os.tmpdir(), 'kill-'));
    const [whole, broken] = [path.join(root, 'whole'), path.join(root, 'broken')];
    expect(await run(whole, null)).to.equal(true);
    for (let i = 0; i < 10; i++) await run(broken, { step: 2 + (i % 4), delay: (i * 37) % 90 });
    expect(await run(broken, null)).to.equal(true);
    expect(curve(broken)).to.deep.equal(curve(whole));
    expect(fs.readdirSync(broken).filter((name) => name.endsWith('.part'))).to.deep.equal([]);
    fs.rmSync(root, { recursive: true });
  });
});
