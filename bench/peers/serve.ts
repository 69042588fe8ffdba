/** What our workers have in common: JSON lines on standard input start the work and ask for rounds. See worker.ts for the other end. */
import * as readline from 'node:readline';
import { configureRuntime, packageVersion } from '../../src/runtime/index.js';
import type { Work } from './peer.js';

export type Kind = 'compiled' | 'eager' | 'int4';

/**
 * Serves until standard input ends, then ends the process. The kind and flags for XLA are the process's arguments.
 * @param start gets ready and returns a round, which gives tokens a second; the first one, which compiles, is not counted
 */
export async function serve(start: (work: Work, kind: Kind) => Promise<() => Promise<number>>): Promise<never> {
  const [kind, ...xlaFlags] = process.argv.slice(2) as [Kind, ...string[]];
  const reply = (message: object): boolean => process.stdout.write(`${JSON.stringify(message)}\n`);
  let round: () => Promise<number>;
  for await (const line of readline.createInterface({ input: process.stdin })) {
    try {
      const request = JSON.parse(line) as { start?: Work };
      if (request.start) {
        configureRuntime({ threads: request.start.threads, xlaFlags, compileCache: true });
        round = await start(request.start, kind);
        await round();
        reply({ version: `tfjs-mamba2 ${packageVersion()}` });
      } else {
        reply({ value: await round!() });
      }
    } catch (error) {
      reply({ error: (error as Error).message });
    }
  }
  process.exit(0);
}
