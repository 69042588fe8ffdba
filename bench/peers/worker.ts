/** A peer in a worker process that takes and gives one line of JSON at a time. */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import * as readline from 'node:readline';
import { memoryOf } from '../../test/support/process_memory.js';
import type { Peer, Work } from './peer.js';

interface Reply {
  version?: string;
  value?: number;
  error?: string;
}

export class WorkerPeer implements Peer {
  version = '';
  private process: ChildProcessWithoutNullStreams | null = null;
  private waiting: { resolve: (reply: Reply) => void; reject: (error: Error) => void } | null = null;
  private complaints = '';

  constructor(
    readonly name: string,
    private readonly command: readonly string[],
    private readonly work: Work,
    private readonly env: Record<string, string> = {},
  ) {}

  async start(): Promise<void> {
    const [program, ...args] = this.command as [string, ...string[]];
    const child = spawn(program, args, { env: { ...process.env, ...this.env } });
    this.process = child;
    child.stderr.on('data', (data: Buffer) => (this.complaints = (this.complaints + data.toString()).slice(-2000)));
    child.on('error', (error) => this.waiting?.reject(error));
    child.on('exit', (code) => {
      this.waiting?.reject(new Error(`${this.name} ended with code ${code}: ${this.complaints}`));
      this.process = null;
    });
    readline.createInterface({ input: child.stdout }).on('line', (line) => {
      if (line.startsWith('{')) this.waiting?.resolve(JSON.parse(line) as Reply);
    });
    this.version = (await this.ask({ start: this.work })).version ?? '';
  }

  async round(): Promise<number> {
    const { value } = await this.ask({ round: true });
    if (value === undefined) throw new Error(`${this.name} gave no figure: ${this.complaints}`);
    return value;
  }

  async stop(): Promise<void> {
    const child = this.process;
    if (!child) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.stdin.end();
    await ended;
  }

  /** Of Linux, for the worker itself. */
  peakMemory(): number | null {
    const pid = this.process?.pid;
    return pid === undefined ? null : memoryOf('VmHWM', pid);
  }

  private async ask(request: object): Promise<Reply> {
    const child = this.process;
    if (!child) throw new Error(`${this.name} is not running: ${this.complaints}`);
    const reply = await new Promise<Reply>((resolve, reject) => {
      this.waiting = { resolve, reject };
      child.stdin.write(`${JSON.stringify(request)}\n`);
    });
    this.waiting = null;
    if (reply.error) throw new Error(`${this.name}: ${reply.error}`);
    return reply;
  }
}
