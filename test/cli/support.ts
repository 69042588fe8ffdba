/** Runs the command as a user does, in a process of its own. */
import { spawnSync } from 'node:child_process';
import * as path from 'node:path';

export const BIN = path.resolve('bin/mamba2.js');

export function mamba2(args: readonly string[], options: { input?: string; env?: Record<string, string> } = {}) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [BIN, ...args], {
    encoding: 'utf8',
    input: options.input ?? '',
    env: { ...process.env, NODE_OPTIONS: '', ...options.env },
  });
  return { code: status, out: stdout, err: stderr };
}
