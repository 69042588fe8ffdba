/** Counts what programs bring to the host and from there: variables as a whole, which states are. */
import { Program } from '../../src/jit/index.js';

const METHODS = ['readAllBytes', 'readBytes', 'assignAll', 'assign', 'zeroAll'] as const;

export interface Counted {
  /** Whole variables that crossed, or were zeroed one by one, by the method that did it. */
  copies: Record<(typeof METHODS)[number], number>;
  /** Calls of functions by name. */
  calls: Record<string, number>;
}

/** What programs do while some work is done. */
export async function hostCopies(work: () => Promise<unknown>): Promise<Counted> {
  const copies = Object.fromEntries(METHODS.map((name) => [name, 0])) as Counted['copies'];
  const calls: Counted['calls'] = {};
  const own = Object.getOwnPropertyDescriptors(Program.prototype);
  const count = (name: string, add: (args: unknown[]) => void): void => {
    const method = own[name as keyof typeof own]!.value as (...args: unknown[]) => unknown;
    const counted = function (this: Program, ...args: unknown[]): unknown {
      add(args);
      return method.apply(this, args);
    };
    Object.defineProperty(Program.prototype, name, { ...own[name as keyof typeof own], value: counted });
  };
  for (const name of METHODS)
    count(name, ([what]) => (copies[name] += typeof what === 'object' && what ? Object.keys(what).length : 1));
  count('call', ([name]) => (calls[name as string] = (calls[name as string] ?? 0) + 1));
  try {
    await work();
  } finally {
    for (const name of [...METHODS, 'call'] as const) Object.defineProperty(Program.prototype, name, own[name]);
  }
  return { copies, calls };
}
