/** llama.cpp: each round is one run of its llama-bench (of several rows llama-batched-bench), which loads the model, warms up and measures by itself. */
import { execFile, execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { promisify } from 'node:util';
import { cacheRoot } from '../../src/runtime/index.js';
import { MissingPeer, type Peer, type Work } from './peer.js';

const run = promisify(execFile);

export const GGUF_TYPES = ['F32', 'BF16', 'Q8_0', 'Q4_0'] as const;
export type GgufType = (typeof GGUF_TYPES)[number];

/** Tokens of each row before several are decoded, as ours_worker.ts has them. */
const PROMPT = 16;

const folder = (): string => process.env.MAMBA2_BENCH_LLAMACPP ?? path.join(cacheRoot(), 'bench', 'llama.cpp');

/** The checkpoint as a GGUF file, written once by llama.cpp's own converter and llama-quantize. */
export function gguf(checkpoint: string, type: GgufType, python: string): string {
  const file = path.join(checkpoint, `model-${type}.gguf`);
  if (fs.existsSync(file)) return file;
  const aside = `${file}.part`;
  if (type === 'F32' || type === 'BF16') {
    const script = path.join(folder(), 'convert_hf_to_gguf.py');
    execFileSync(python, [script, checkpoint, '--outtype', type.toLowerCase(), '--outfile', aside], {
      stdio: 'pipe',
    });
  } else {
    // --pure: the embedding, which is the head too, is of the same type as all others
    const args = ['--pure', gguf(checkpoint, 'BF16', python), aside, type];
    execFileSync(path.join(folder(), 'llama-quantize'), args, { stdio: 'pipe' });
  }
  fs.renameSync(aside, file);
  return file;
}

class LlamaBench implements Peer {
  version = '';
  private file = '';

  constructor(
    private readonly work: Work,
    private readonly type: GgufType,
    private readonly python: string,
  ) {}

  get name(): string {
    return `llama.cpp ${this.type}`;
  }

  async start(): Promise<void> {
    this.file = gguf(this.work.checkpoint, this.type, this.python);
    const [{ build_commit: commit }] = await this.run<{ build_commit: string }>('llama-bench', [
      ...['-p', '0', '-n', '1', '-r', '1', '-o', 'json'],
    ]);
    const stated = path.join(folder(), 'VERSION');
    this.version = `llama.cpp ${commit}${fs.existsSync(stated) ? ` (${fs.readFileSync(stated, 'utf8').trim()})` : ''}`;
  }

  async round(): Promise<number> {
    const { task, tokens, rows } = this.work;
    if (rows > 1) {
      const [{ speed_tg }] = await this.run<{ speed_tg: number }>('llama-batched-bench', [
        ...['-npp', String(PROMPT), '-ntg', String(tokens), '-npl', String(rows)],
        ...['-c', String(2 * rows * (PROMPT + tokens)), '--output-format', 'jsonl'],
      ]);
      return speed_tg;
    }
    const [p, n] = task === 'prefill' ? [tokens, 0] : [0, tokens];
    const own = ['-p', String(p), '-n', String(n), '-r', '1', '-o', 'json'];
    return (await this.run<{ avg_ts: number }>('llama-bench', own))[0].avg_ts;
  }

  async stop(): Promise<void> {}

  /** What a program of llama.cpp gives: a list in JSON, or one object a line. */
  private async run<T>(program: string, own: readonly string[]): Promise<[T]> {
    const args = ['-m', this.file, '-t', String(this.work.threads), '-ngl', '0', ...own];
    const { stdout } = await run(path.join(folder(), program), args, { maxBuffer: 1 << 24 });
    if (stdout.trimStart().startsWith('[')) return JSON.parse(stdout) as [T];
    const line = stdout.split('\n').find((text) => text.startsWith('{'));
    if (!line) throw new Error(`${program} gave no figures: ${stdout.slice(-500)}`);
    return [JSON.parse(line) as T];
  }
}

/** @throws MissingPeer when build_llamacpp.sh was not run, or for tasks that llama-bench does not measure */
export function llamacpp(work: Work, type: GgufType, python: string): Peer {
  if (work.task === 'load' || work.task === 'train') throw new MissingPeer(`llama-bench does not measure ${work.task}`);
  const program = work.rows > 1 ? 'llama-batched-bench' : 'llama-bench';
  if (!fs.existsSync(path.join(folder(), program))) {
    throw new MissingPeer(`no ${program} in ${folder()}: run bench/peers/build_llamacpp.sh`);
  }
  return new LlamaBench(work, type, python);
}
