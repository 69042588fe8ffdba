/** The functions of a program: traced when they are needed, and called. */
import { ArgumentError } from '../../base/errors.js';
import type { Pieces } from '../../base/pieces.js';
import { programCache } from '../../runtime/caches.js';
import { type FedValue, type PreparedCall, releaseMemory } from '../../runtime/native_session.js';
import { TracingError } from '../errors.js';
import { traceAtOnce, traceInPieces } from '../trace/backend.js';
import type { InputValue, ProgramOptions, TensorSpec } from '../types.js';
import { type Call, callOf, fetchesOf, inputValues } from './call_values.js';
import { checkName, type Traced } from './function.js';
import type { Signature } from './graph_cache.js';
import type { Assigns } from './held_variables.js';
import type { OuterGraph } from './outer_graph.js';
import type { Session } from './session.js';

interface Callable {
  build: () => Pieces<Traced>;
  /** Once traced. */
  traced: Traced | null;
  /** Once traced, or known from a kept graph. */
  call: Call | null;
  /** Whether XLA has compiled it, or is about to. */
  compiled: boolean;
}

/** An output of a call, and its bytes. */
export type Result = readonly [output: string, spec: TensorSpec, bytes: ArrayBuffer];

/** A call that was checked and only needs to be made. */
export interface ReadyCall {
  /** For messages. */
  what: string;
  /** The session takes the function in. A call that is made without waiting for it comes after it. */
  taken: Promise<void> | null;
  prepared: PreparedCall;
  values: readonly FedValue[];
  assigns: Assigns;
  /** To be called with what it gave. */
  ended(results: readonly ArrayBuffer[]): Result[];
  /** To be called where it failed. */
  failed(): void;
}

/** Tells how long work took. */
export function timed<T>(hook: ProgramOptions['onCompile'], name: string, phase: 'trace' | 'load', work: () => T): T {
  const began = performance.now();
  const result = work();
  hook?.(name, phase, performance.now() - began);
  return result;
}

/** What follows from a call being a function's first, which XLA compiles. @returns what to call when the call has ended, and where it failed */
export function firstCall(
  fn: { compiled: boolean },
  name: string,
  hook: ProgramOptions['onCompile'],
): { first: boolean; ended: () => void; failed: () => void } {
  if (fn.compiled) return { first: false, ended: () => {}, failed: () => {} };
  const began = performance.now();
  fn.compiled = true;
  programCache()?.check();
  hook?.(name, 'compile', null);
  return {
    first: true,
    ended: () => {
      programCache()?.keep();
      releaseMemory();
      hook?.(name, 'compile', performance.now() - began);
    },
    failed: () => {
      fn.compiled = false;
    },
  };
}

/** A call in messages. */
const what = (name: string): string => `run('${name}')`;

export class Functions {
  private readonly all = new Map<string, Callable>();
  /** By the names of functions: what the session takes in before their first call. */
  private readonly parts = new Map<string, Uint8Array>();

  constructor(
    private readonly label: string,
    private readonly options: ProgramOptions,
  ) {}

  get names(): string[] {
    return [...this.all.keys()];
  }

  /** @throws TracingError for a name that is taken or not allowed, and what tracing throws, unless it is done later */
  add(name: string, build: () => Pieces<Traced>): void {
    checkName('function', name);
    if (this.all.has(name)) throw new TracingError(`define('${name}'): the name is taken.`, { name });
    const fn: Callable = { build, traced: null, call: null, compiled: false };
    if (!this.options.graphCache && !this.options.deferTracing) this.trace(name, fn);
    this.all.set(name, fn);
  }

  /** @throws ArgumentError when there is none of that name */
  traced(name: string): Traced {
    return this.trace(name, this.callable(name));
  }

  /** All functions, traced. */
  allTraced(): Traced[] {
    return [...this.all].map(([name, fn]) => this.trace(name, fn));
  }

  /** The same, in pieces, between which others run. @param alive asked between them; what it throws ends the work */
  async traceAll(alive: () => void): Promise<Traced[]> {
    for (const [name, fn] of this.all) {
      if (fn.traced) continue;
      const began = performance.now();
      const traced = await traceInPieces(fn.build(), alive);
      this.options.onCompile?.(name, 'trace', performance.now() - began);
      this.keep(name, fn, traced);
    }
    return this.allTraced();
  }

  /** Takes over what is known of a kept graph. */
  know(signatures: Readonly<Record<string, Signature>>): void {
    for (const [name, fn] of this.all) fn.call = callOf(name, signatures[name]!);
  }

  /** What was left out of the graph that the session has. */
  leave(parts: OuterGraph['parts']): void {
    for (const [name, part] of Object.entries(parts)) this.parts.set(name, part);
  }

  /** @throws ArgumentError when there is none of that name */
  check(name: string): void {
    this.callable(name);
  }

  /**
   * Checks a call and prepares it. Where it is the function's first, the session takes the function in, and XLA compiles it.
   * @param wait whether the session takes it in at once
   * @throws ArgumentError for inputs that do not fit, or outputs that the function does not have
   */
  ready(
    session: Session,
    name: string,
    inputs: Record<string, InputValue>,
    wanted: readonly string[] | undefined,
    wait: boolean,
  ): ReadyCall {
    const fn = this.callable(name);
    const call = fn.call!;
    const values = inputValues(name, call.inputs, inputs);
    const outputs = wanted ?? Object.keys(call.outputs);
    const fetches = fetchesOf(name, call, outputs);
    const taken = this.takenIn(session, name, wait);
    const prepared = session.prepare(call.feeds, fetches);
    const { first, ended, failed } = firstCall(fn, name, this.options.onCompile);
    return {
      what: what(name),
      taken,
      prepared,
      values,
      assigns: { names: call.assigned, first },
      ended: (results) => {
        ended();
        return outputs.map((output, i) => [output, call.outputs[output]!, results[i]!]);
      },
      failed,
    };
  }

  private takenIn(session: Session, name: string, wait: boolean): Promise<void> | null {
    const part = this.parts.get(name);
    if (!part) return null;
    if (wait) session.extendSync(what(name), part);
    this.parts.delete(name);
    if (wait) return null;
    const taken = session.extend(what(name), part);
    taken.catch(() => this.parts.set(name, part));
    return taken;
  }

  private trace(name: string, fn: Callable): Traced {
    if (!fn.traced) {
      const traced = timed(this.options.onCompile, name, 'trace', () => traceAtOnce(fn.build()));
      this.keep(name, fn, traced);
    }
    return fn.traced!;
  }

  private keep(name: string, fn: Callable, traced: Traced): void {
    fn.traced = traced;
    fn.call = callOf(name, traced);
  }

  private callable(name: string): Callable {
    const fn = this.all.get(name);
    if (fn) return fn;
    throw new ArgumentError(`${this.label} has no function '${name}', only ${this.names.join(', ') || 'none'}.`, {
      name,
    });
  }
}
