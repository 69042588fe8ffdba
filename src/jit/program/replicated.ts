/**
 * A program that several devices of one process run at once: each has its own variables, of the same names and shapes, and a call runs the same
 * function on all of them. What they have to tell one another they add up in it (ops/all_reduce.ts). A call is one run of one graph.
 */
import { TracingError } from '../errors.js';
import { DeviceGroup, type SumPlace } from '../ops/all_reduce.js';
import type { DefineOptions, LoopOptions, TensorSpec, TracedFunction, VariableSpec } from '../types.js';
import { checkName } from './function.js';
import { type Callable, type DevicesOptions, GraphProgram, type Located } from './graph_program.js';
import type { Traced } from './replicas.js';
import { wireTogether } from './together.js';

export interface ReplicatedOptions extends DevicesOptions {
  sums: SumPlace;
}

/** A function, or a loop of one. */
interface Replicated extends Callable {
  readonly inputs: Record<string, TensorSpec>;
  readonly fn: TracedFunction | null;
  readonly options: DefineOptions;
  readonly loop: LoopOptions | null;
  traced: Traced | null;
}

/** The name of a variable of one device. */
export const onDevice = (name: string, device: number): string => `${name}:${device}`;

/**
 * See the file. Order of use: `variable`, `define` and `defineLoop`, then `compile` once, then `call` as often as wanted, then `dispose`.
 *
 * Outputs are those of the first device. A variable's name stands for all devices where it is set, and for the first where it is read; onDevice()
 * names that of one.
 */
export class ReplicatedProgram extends GraphProgram<Replicated> {
  readonly group: DeviceGroup;
  private readonly specs: Map<string, VariableSpec>[];

  constructor(options: ReplicatedOptions) {
    super(options);
    const { devices, sums, gpu } = options;
    this.group = new DeviceGroup(devices.length, sums, gpu);
    this.specs = devices.map(() => new Map<string, VariableSpec>());
  }

  /** Declares a variable of every device. @param of what it is on each. @throws TracingError for a name that is taken or not allowed */
  variable(name: string, of: VariableSpec | ((device: number) => VariableSpec)): void {
    checkName('variable', name);
    if (this.specs[0]!.has(name)) throw new TracingError(`variable('${name}'): the name is taken.`, { name });
    for (const [k, own] of this.specs.entries()) {
      const spec = typeof of === 'function' ? of(k) : of;
      own.set(name, spec);
      this.graph.variable(k, name, spec);
    }
  }

  /** Adds a function, which compile() traces once for all devices. */
  define(name: string, inputs: Record<string, TensorSpec>, fn: TracedFunction, options: DefineOptions = {}): void {
    this.add(name, { inputs, fn, options, loop: null });
  }

  /**
   * Adds a function that repeats another. Where that one's sums are between functions, its steps are calls one after another, as many as there are
   * steps; such loops know no `count`, `stop` and `index`.
   */
  defineLoop(name: string, loop: LoopOptions): void {
    this.add(name, { inputs: {}, fn: null, options: {}, loop });
  }

  private add(name: string, fn: Pick<Replicated, 'inputs' | 'fn' | 'options' | 'loop'>): void {
    checkName('function', name);
    if (this.callables.has(name)) throw new TracingError(`define('${name}'): the name is taken.`, { name });
    this.callables.set(name, { ...fn, traced: null, given: {}, results: {}, compiled: false });
  }

  /** Traces, hands the graph over and fills the variables. @throws what tracing throws, DeviceError where TensorFlow does not take it */
  async compile(): Promise<void> {
    await this.loaded(async () => {
      for (const [name, fn] of this.callables) if (fn.fn) fn.traced = await this.graph.trace(name, fn.inputs, fn.fn, fn.options, 0); // prettier-ignore
      for (const [name, fn] of this.callables) {
        if (!fn.loop) {
          this.wire(name, fn, fn.traced!, null);
          continue;
        }
        const body = this.callables.get(fn.loop.body)?.traced;
        if (!body) throw new TracingError(`defineLoop('${name}'): there is no function '${fn.loop.body}'.`, { name });
        if (body.clusters) this.wire(name, fn, body, fn.loop);
        else this.wire(name, fn, await this.graph.traceLoop(name, body, fn.loop), null);
      }
    });
  }

  private wire(name: string, fn: Replicated, traced: Traced, unrolled: LoopOptions | null): void {
    const { graph, group } = this;
    const all = Array.from({ length: group.size }, () => traced);
    wireTogether(graph, name, fn, { traced: all, group, giver: 0, unrolled });
  }

  protected located(name: string): readonly Located[] {
    const colon = name.lastIndexOf(':');
    const own = colon < 0 ? name : name.slice(0, colon);
    const devices = colon < 0 ? this.specs.keys() : [Number(name.slice(colon + 1))];
    return [...devices].flatMap((device) => {
      const spec = this.specs[device]?.get(own);
      return spec ? [{ device, name: own, spec }] : [];
    });
  }
}
