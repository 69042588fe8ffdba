/** What this machine can do at a moment: rates.cc, compiled and kept running. */
import { type ChildProcessWithoutNullStreams, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import * as readline from 'node:readline';
import { fileURLToPath } from 'node:url';

export interface Rates {
  /** Bytes read a second. */
  read: number;
  /** Multiply-adds a second, in float32. */
  multiply: number;
}

export class RateMeter {
  private constructor(
    private readonly child: ChildProcessWithoutNullStreams,
    private readonly lines: AsyncIterator<string>,
  ) {}

  static start(threads: number): RateMeter {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'tfjs-mamba2-rates-'));
    const program = path.join(folder, 'rates');
    const source = fileURLToPath(new URL('./rates.cc', import.meta.url));
    const flags = ['-O3', '-march=native', '-ffp-contract=fast', '-fno-tree-vectorize', '-pthread', '-Wno-psabi'];
    try {
      execFileSync(process.env.CXX ?? 'g++', [...flags, source, '-o', program], { stdio: 'inherit' });
      const child = spawn(program, [String(threads)]);
      const lines = readline.createInterface({ input: child.stdout })[Symbol.asyncIterator]();
      child.once('exit', () => fs.rmSync(folder, { recursive: true, force: true }));
      return new RateMeter(child, lines);
    } catch (error) {
      fs.rmSync(folder, { recursive: true, force: true });
      throw error;
    }
  }

  async now(): Promise<Rates> {
    this.child.stdin.write('\n');
    const line: IteratorResult<string, unknown> = await this.lines.next();
    if (line.done) throw new Error('The program that measures the machine has ended.');
    return JSON.parse(line.value) as Rates;
  }

  async stop(): Promise<void> {
    const ended = once(this.child, 'exit');
    this.child.stdin.end();
    await ended;
  }
}
