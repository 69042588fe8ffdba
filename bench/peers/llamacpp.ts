/** llama.cpp: each round is one run of its llama-bench, which loads the model, warms up and measures by itself. */
import { execFile, execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { promisify } from 'node:util';
import { cacheRoot } from '../../src/runtime/index.js';
import { MissingPeer, type Peer, type Work } from './peer.js';

const run = promisify(execFile);

export const GGUF_TYPES = ['F32', 'BF16', 'Q8_0', 'Q4_0'] as const;
export type GgufType = (typeof GGUF_TYPES)[number];

const folder = (): string => process.env.MAMBA2_BENCH_LLAMACPP ?? path.join(cacheRoot(), 'bench', 'llama.cpp');

/** The checkpoint as a GGUF file, written once by llama.cpp's own converter and llama-quantize. */
function gguf(work: Work, type: GgufType, python: string): string {
  const file = path.join(work.checkpoint, `model-${type}.gguf`);
  if (fs.existsSync(file)) return file;
  const aside = `${file}.part`;
  if (type === 'F32' || type === 'BF16') {
    const script = path.join(folder(), 'convert_hf_to_gguf.py');
    execFileSync(python, [script, work.checkpoint, '--outtype', type.toLowerCase(), '--outfile', aside], {
      stdio: 'pipe',
    });
  } else {
    // --pure: the embedding, which is the head too, is of the same type as all others
    const args = ['--pure', gguf(work, 'BF16', python), aside, type];
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
    this.file = gguf(this.work, this.type, this.python);
    const { build_commit: commit } = await this.bench();
    const stated = path.join(folder(), 'VERSION');
    this.version = `llama.cpp ${commit}${fs.existsSync(stated) ? ` (${fs.readFileSync(stated, 'utf8').trim()})` : ''}`;
  }

  async round(): Promise<number> {
    return (await this.bench()).avg_ts;
  }

  async stop(): Promise<void> {}

  private async bench(): Promise<{ avg_ts: number; build_commit: string }> {
    const { task, tokens, threads } = this.work;
    const [p, n] = task === 'prefill' ? [tokens, 0] : [0, tokens];
    const args = [
      '-m',
      this.file,
      '-p',
      String(p),
      '-n',
      String(n),
      '-t',
      String(threads),
      '-r',
      '1',
      '-ngl',
      '0',
      '-o',
      'json',
    ];
    const { stdout } = await run(path.join(folder(), 'llama-bench'), args, { maxBuffer: 1 << 24 });
    return (JSON.parse(stdout) as { avg_ts: number; build_commit: string }[])[0]!;
  }
}

/** @throws MissingPeer when build_llamacpp.sh was not run, or for tasks that llama-bench does not measure */
export function llamacpp(work: Work, type: GgufType, python: string): Peer {
  if (work.task === 'load' || work.task === 'train') throw new MissingPeer(`llama-bench does not measure ${work.task}`);
  if (!fs.existsSync(path.join(folder(), 'llama-bench'))) {
    throw new MissingPeer(`no llama-bench in ${folder()}: run bench/peers/build_llamacpp.sh`);
  }
  return new LlamaBench(work, type, python);
}
