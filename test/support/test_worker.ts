/** Workers (`mamba2 worker`) on this machine, as processes of their own. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import * as net from 'node:net';
import { BIN } from '../cli/support.js';

export interface RunningWorker {
  /** HOST:PORT */
  address: string;
  port: number;
  child: ChildProcess;
  /** What it has printed. */
  text: () => string;
  /** Ends it. @returns its exit code, or the signal */
  end: (signal?: NodeJS.Signals) => Promise<number | string | null>;
}

/** A port that nobody listens at. */
export async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

/** Starts a worker and waits until it listens. */
export async function startTestWorker(given?: number): Promise<RunningWorker> {
  const port = given ?? (await freePort());
  const child = spawn(process.execPath, [BIN, 'worker', '--listen', `127.0.0.1:${port}`, '--device', 'cpu'], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, NODE_OPTIONS: '' },
  });
  let text = '';
  const exited = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>;
  await new Promise<void>((resolve, reject) => {
    child.stderr.on('data', (part: Buffer) => {
      text += part.toString();
      if (text.includes('listens at')) resolve();
    });
    void exited.then(([code]) => reject(new Error(`the worker ended with ${code}: ${text}`)));
  });
  return {
    address: `127.0.0.1:${port}`,
    port,
    child,
    text: () => text,
    end: async (signal = 'SIGTERM') => {
      child.kill(signal);
      const [code, by] = await exited;
      return code ?? by;
    },
  };
}
