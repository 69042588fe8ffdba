/** Runs the command as a user does: in a process of its own, or one after another in a process that a suite shares. */
import { type ChildProcess, fork, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';

export const BIN = path.resolve('bin/mamba2.js');

export interface Result {
  code: number | null;
  out: string;
  err: string;
}

/** One command in a process of its own. */
export function mamba2(
  args: readonly string[],
  options: { input?: string; env?: Record<string, string> } = {},
): Result {
  const { status, stdout, stderr } = spawnSync(process.execPath, [BIN, ...args], {
    encoding: 'utf8',
    input: options.input ?? '',
    env: { ...process.env, NODE_OPTIONS: '', ...options.env },
  });
  return { code: status, out: stdout, err: stderr };
}

const END = '\0end of a command\0';

/**
 * One process for all commands of a suite (command_server.ts), which loads modules and TensorFlow once; what they print
 * comes through pipes, as from processes of their own. To be called within describe().
 */
export function sharedMamba2(): (args: readonly string[], options?: { input?: string }) => Promise<Result> {
  let child: ChildProcess;
  before(() => {
    const server = fileURLToPath(new URL('command_server.ts', import.meta.url));
    const env = { ...process.env, NODE_OPTIONS: '' };
    child = fork(server, { execArgv: ['--import', 'tsx'], stdio: ['ignore', 'pipe', 'pipe', 'ipc'], env });
  });
  after(() => void child.kill());
  return async (args, { input = '' } = {}) => {
    const died = once(child, 'exit').then(([code]) => {
      throw new Error(`mamba2 ${args.join(' ')} ended its process with ${code}`);
    });
    const answer = once(child, 'message') as Promise<[{ code: number }]>;
    const texts = [printed(child.stdout!), printed(child.stderr!)];
    child.send({ args, input, end: END });
    const [[{ code }], out, err] = await Promise.race([Promise.all([answer, ...texts] as const), died]);
    return { code, out: out as string, err: err as string };
  };
}

/** What a stream brings until the mark of an end. */
function printed(stream: NodeJS.ReadableStream): Promise<string> {
  return new Promise((resolve) => {
    const parts: Buffer[] = [];
    const take = (part: Buffer): void => {
      parts.push(part);
      const text = Buffer.concat(parts).toString('utf8');
      if (!text.endsWith(END)) return;
      stream.off('data', take);
      resolve(text.slice(0, -END.length));
    };
    stream.on('data', take);
  });
}
