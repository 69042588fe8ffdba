/** Running other programs during set-up. */
import { spawn } from 'node:child_process';

export interface Finished {
  /** Exit code; null when the program was ended by a signal. */
  code: number | null;
  /** 'ENOENT' when there is no such program. */
  missing: boolean;
  stdout: string;
  stderr: string;
}

/**
 * Runs a program to its end and keeps what it printed. Never throws: a program that does not exist gives
 * `missing: true`.
 *
 * @param options.cwd folder to run in
 * @param options.env environment, instead of this process's own
 * @param options.echo also shows on our stderr what the program prints on stdout (progress bars)
 */
export function runProgram(
  program: string,
  args: readonly string[],
  options: { cwd?: string; env?: NodeJS.ProcessEnv; echo?: boolean } = {},
): Promise<Finished> {
  return new Promise((resolve) => {
    const child = spawn(program, args, {
      cwd: options.cwd,
      env: options.env ?? process.env,
      stdio: ['ignore', options.echo ? 2 : 'pipe', 'pipe'],
    });
    let stdout = '';
    let stderr = '';
    child.stdout?.setEncoding('utf8').on('data', (text: string) => (stdout += text));
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    child.on('error', (error: NodeJS.ErrnoException) =>
      resolve({ code: null, missing: error.code === 'ENOENT', stdout, stderr: stderr || error.message }),
    );
    child.on('close', (code) => resolve({ code, missing: false, stdout, stderr }));
  });
}
