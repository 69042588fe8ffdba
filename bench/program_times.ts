/** How long the calls of programs take, by what they do: for tables that say where time goes. */
import { Program } from '../src/jit/index.js';

/** Calls of one kind. */
export interface Calls {
  count: number;
  ms: number;
  /** Bytes of variables that were brought to the host or from there. */
  bytes: number;
}

/** Kinds that move whole variables between host and device. */
export const TO_HOST = 'variables to the host';
export const FROM_HOST = 'variables from the host';
export const ZEROED = 'variables zeroed one by one';

/** A function's name without its numbers of rows and tokens: `prefill1x64` is `prefill`, `move4to8` is `moveto`. */
const kindOf = (name: string): string => name.replace(/\d+x\d+|\d+/g, '');

const viewBytes = (view: unknown): number => (ArrayBuffer.isView(view) ? view.byteLength : 0);

/**
 * Counts the calls of all programs from here on, each with the time from its call to its end. An engine waits for each call before the
 * next, so that the times add up.
 */
export class ProgramTimes {
  private calls = new Map<string, Calls>();

  constructor() {
    this.wrap('call', ([name]) => kindOf(name));
    this.wrap(
      'assign',
      () => FROM_HOST,
      ([, value]) => viewBytes(value),
    );
    this.wrap('zeroAll', () => ZEROED);
    this.wrap('readAllBytes', () => TO_HOST, (_, read) => (read as Uint8Array[]).reduce((sum, { byteLength }) => sum + byteLength, 0)); // prettier-ignore
    const given = new WeakMap<object, number>();
    // eslint-disable-next-line @typescript-eslint/unbound-method -- it is called with the program
    const { assignAll } = Program.prototype;
    Program.prototype.assignAll = function (this: Program, values) {
      let bytes = 0;
      const counted = Object.fromEntries(
        Object.entries(values).map(([name, value]) => [name, async () => {
          const own = await value();
          bytes += own.byteLength;
          given.set(values, bytes);
          return own;
        }]),
      ); // prettier-ignore
      return assignAll.call(this, counted);
    };
    this.wrap(
      'assignAll',
      () => FROM_HOST,
      ([values]) => given.get(values) ?? 0,
    );
  }

  /** What was counted since the last time, by kind; counting begins anew. */
  take(): Map<string, Calls> {
    const taken = this.calls;
    this.calls = new Map();
    return taken;
  }

  private wrap<K extends 'call' | 'assign' | 'assignAll' | 'zeroAll' | 'readAllBytes'>(
    method: K,
    kind: (args: Parameters<Program[K]>) => string,
    bytes: (args: Parameters<Program[K]>, result: unknown) => number = () => 0,
  ): void {
    // eslint-disable-next-line @typescript-eslint/no-unsafe-function-type
    const own = Program.prototype[method] as Function;
    const add = (args: Parameters<Program[K]>, began: number, result: unknown): unknown => {
      const name = kind(args);
      const known = this.calls.get(name) ?? { count: 0, ms: 0, bytes: 0 };
      const ms = known.ms + performance.now() - began;
      this.calls.set(name, { count: known.count + 1, ms, bytes: known.bytes + bytes(args, result) });
      return result;
    };
    const counted = function (this: Program, ...args: Parameters<Program[K]>): unknown {
      const began = performance.now();
      const made: unknown = own.apply(this, args);
      return made instanceof Promise ? made.then((result) => add(args, began, result)) : add(args, began, made);
    };
    Object.assign(Program.prototype, { [method]: counted });
  }
}
