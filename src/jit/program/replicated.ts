/**
 * A program that several devices of one process run at once: each has its own variables, of the same names and shapes, and a call runs the same
 * function on all of them. What they have to tell one another they add up in it (ops/all_reduce.ts). A call is one run of one graph.
 */
import { TracingError } from '../errors.js';
import { dtypeNumber } from '../../runtime/data_types.js';
import { DeviceGroup, type SumPlace } from '../ops/all_reduce.js';
import { attr } from '../trace/graphdef.js';
import type { DefineOptions, LoopOptions, TensorSpec, TracedFunction, VariableSpec } from '../types.js';
import { checkName } from './function.js';
import { type Callable, type DevicesOptions, DONE, GraphProgram, type Located } from './graph_program.js';
import type { Place, Traced } from './replicas.js';

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

/** Whether a function adds up what devices have. */
const addsUp = ({ text, library }: Traced): boolean =>
  [text, ...library].some(({ nodes }) => nodes.some(({ op }) => op === 'CollectiveReduceV2'));

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

  /** The nodes of a function. @param unrolled how often it is called one time after another, where its loop is no function */
  private wire(name: string, fn: Replicated, traced: Traced, unrolled: LoopOptions | null): void {
    const { graph, group } = this;
    const { steps, each = [], feed = {}, count, stop, index } = unrolled ?? { steps: 1 };
    if (count ?? stop ?? index)
      throw new TracingError(`defineLoop('${name}'): sums are between functions, so that it has no count, stop or index.`, { name }); // prettier-ignore
    graph.entry(name);
    const feeds: Record<string, Place> = {};
    const slices: Record<string, Place[]> = {};
    for (const [input, spec] of Object.entries(traced.inputs)) {
      const stacked = unrolled !== null && each.includes(input);
      const given = stacked ? { ...spec, shape: [steps, ...spec.shape] } : spec;
      fn.given[input] = given;
      feeds[input] = graph.feed(name, 0, input, given);
      if (!stacked) continue;
      const attrs = { T: attr.type(dtypeNumber(spec.dtype)), num: attr.int(steps), axis: attr.int(0) };
      const { node } = graph.onHost(name, `${input}_each`, 'Unpack', [feeds[input].node], attrs, spec);
      slices[input] = Array.from({ length: steps }, (_, i) => ({ node: `${node}:${i}`, spec }));
    }
    const gates = addsUp(traced) ? graph.gate(name, group.hint) : [];
    const all: string[] = [];
    const made: Record<string, Place>[] = [];
    for (let k = 0; k < group.size; k++) {
      let before = gates.slice(k, k + 1);
      let values: Record<string, Place> = feeds;
      for (let step = 0; step < steps; step++) {
        const own = Object.fromEntries(Object.entries(slices).map(([input, of]) => [input, of[step]!]));
        const carried = step === 0 ? {} : Object.fromEntries(Object.entries(feed).map(([to, from]) => [to, values[from]!])); // prettier-ignore
        const given = { ...feeds, ...own, ...carried };
        const call = { suffix: unrolled ? `_${step}` : '', after: before };
        values = graph.call(name, k, traced, given, call);
        before = [graph.callName(name, k, traced, call)];
        all.push(...before);
        if (k === 0) made.push(values);
      }
    }
    for (const [output, first] of Object.entries(made[0]!)) {
      let place = first;
      if (unrolled) {
        const attrs = { T: attr.type(dtypeNumber(first.spec.dtype)), N: attr.int(steps), axis: attr.int(0) };
        const spec = { ...first.spec, shape: [steps, ...first.spec.shape] };
        place = graph.onHost(name, `${output}_all`, 'Pack', made.map((of) => of[output]!.node), attrs, spec); // prettier-ignore
      }
      fn.results[output] = place.spec;
      graph.fetch(name, output, place);
    }
    const attrs = { dtype: attr.type(dtypeNumber('bool')), value: attr.tensor(dtypeNumber('bool'), [], Uint8Array.of(1)) }; // prettier-ignore
    const done = graph.onHost(name, DONE, 'Const', all.map((call) => `^${call}`), attrs, { shape: [], dtype: 'bool' }); // prettier-ignore
    graph.fetch(name, DONE, done);
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
