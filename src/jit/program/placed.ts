/**
 * A program whose variables lie on several devices of one process. XLA compiles for one device, so that a function here is a sequence of parts, each
 * of which XLA compiles for its device; TensorFlow carries what passes from part to part. A call is one run of one graph.
 */
import { ArgumentError } from '../../base/errors.js';
import { describe, dtypeNumber } from '../../runtime/data_types.js';
import { TracingError } from '../errors.js';
import { attr } from '../trace/graphdef.js';
import type { DefineOptions, TensorSpec, TracedFunction, VariableSpec } from '../types.js';
import { checkName } from './function.js';
import { type Callable, DONE, GraphProgram, type Located } from './graph_program.js';
import type { Place, Traced } from './replicas.js';

/** Work on one device, which XLA compiles. */
interface Part {
  device: number;
  inputs: Record<string, TensorSpec>;
  fn: TracedFunction;
  options: DefineOptions;
}

/** A function that does its parts several times over in one call. */
export interface Repeat {
  times: number;
  /** Inputs that it takes stacked, [times, ...shape], and hands out one by one. */
  each?: readonly string[];
  /** 'whole': all parts, and then all of them again. 'parts': a part begins as soon as it has what it takes and has done that of the time before. */
  order: 'whole' | 'parts';
}

/** Parts one after another. Each takes values of its inputs' names: those of the call, or what parts before it gave. */
export interface PlacedFunction {
  inputs: Record<string, TensorSpec>;
  parts: readonly string[];
  /** Names of values that the call gives; of one that repeats stacked, [times, ...shape]. */
  outputs?: readonly string[];
  /** What an input is the next time: a value's name by the input's. */
  carry?: Readonly<Record<string, string>>;
  repeat?: Repeat;
}

/** A function, and what is known of it once the graph is made. */
interface PlacedCallable extends PlacedFunction, Callable {}

/**
 * See the file. Order of use: `variable`, `part` and `define`, then `compile` once, then `call` as often as wanted, then `dispose`.
 *
 * Numbers of devices are places in `devices`. Assignments of a part take place when it ends, and later parts see them.
 */
export class PlacedProgram extends GraphProgram<PlacedCallable> {
  private readonly owners = new Map<string, Located>();
  private readonly parts = new Map<string, Part>();

  /** Declares a variable of a device. @throws TracingError for a name that is taken or not allowed */
  variable(name: string, spec: VariableSpec, device: number): void {
    checkName('variable', name);
    if (this.owners.has(name)) throw new TracingError(`variable('${name}'): the name is taken.`, { name });
    this.owners.set(name, { device, name, spec });
    this.graph.variable(device, name, spec);
  }

  /** The device of a variable. */
  deviceOf(name: string): number {
    const found = this.owners.get(name);
    if (!found) throw new ArgumentError(`${this.options.name} has no variable '${name}'.`, { name });
    return found.device;
  }

  protected located(name: string): readonly Located[] {
    const found = this.owners.get(name);
    return found ? [found] : [];
  }

  /** Adds work on a device, over its variables alone. It is traced by compile(), if a function has it. */
  part(
    name: string,
    device: number,
    inputs: Record<string, TensorSpec>,
    fn: TracedFunction,
    options: DefineOptions = {},
  ): void {
    // prettier-ignore
    checkName('function', name);
    if (this.parts.has(name)) throw new TracingError(`part('${name}'): the name is taken.`, { name });
    this.parts.set(name, { device, inputs, fn, options });
  }

  /** Adds a function. */
  define(name: string, fn: PlacedFunction): void {
    checkName('function', name);
    if (this.callables.has(name)) throw new TracingError(`define('${name}'): the name is taken.`, { name });
    this.callables.set(name, { ...fn, given: {}, results: {}, compiled: false });
  }

  /** Traces, hands the graph over and fills the variables. @throws what tracing throws, DeviceError where TensorFlow does not take it */
  async compile(): Promise<void> {
    await this.loaded(async () => {
      const traced = new Map<string, Traced>();
      for (const fn of this.callables.values())
        for (const name of fn.parts) if (!traced.has(name)) traced.set(name, await this.trace(name));
      for (const [name, fn] of this.callables) this.wire(name, fn, traced);
    });
  }

  private trace(name: string): Promise<Traced> {
    const part = this.parts.get(name);
    if (!part) throw new TracingError(`${this.options.name} has no part '${name}'.`, { name });
    return this.graph.trace(name, part.inputs, part.fn, part.options, part.device);
  }

  /** The nodes of a function. */
  private wire(name: string, fn: PlacedCallable, traced: ReadonlyMap<string, Traced>): void {
    const { graph } = this;
    const { times, each = [], order } = fn.repeat ?? { times: 1, order: 'whole' };
    graph.entry(name);
    const feeds: Record<string, Place> = {};
    const slices: Record<string, Place[]> = {};
    for (const [input, spec] of Object.entries(fn.inputs)) {
      const stacked = fn.repeat && each.includes(input);
      const given = stacked ? { ...spec, shape: [times, ...spec.shape] } : spec;
      fn.given[input] = given;
      feeds[input] = graph.feed(name, 0, input, given);
      if (!stacked) continue;
      const attrs = { T: attr.type(dtypeNumber(spec.dtype)), num: attr.int(times), axis: attr.int(0) };
      const { node } = graph.onHost(name, `${input}_each`, 'Unpack', [feeds[input].node], attrs, spec);
      slices[input] = Array.from({ length: times }, (_, i) => ({ node: `${node}:${i}`, spec }));
    }
    const all: string[] = [];
    let before: string[] = [];
    let values: Record<string, Place> = { ...feeds };
    const made: Record<string, Place>[] = [];
    for (let time = 0; time < times; time++) {
      const carried = time === 0 ? {} : Object.fromEntries(Object.entries(fn.carry ?? {}).map(([to, from]) => [to, values[from]!])); // prettier-ignore
      values = { ...feeds, ...Object.fromEntries(Object.entries(slices).map(([input, of]) => [input, of[time]!])), ...carried }; // prettier-ignore
      const calls: string[] = [];
      for (const [i, part] of fn.parts.entries()) {
        const { device } = this.parts.get(part)!;
        const one = traced.get(part)!;
        for (const input of Object.keys(one.inputs)) this.fits(name, part, input, one.inputs[input]!, values[input]);
        // parts that take nothing from those before would begin at once
        const last = order === 'parts' ? before[i] : (calls.at(-1) ?? before.at(-1));
        const call = { suffix: `_${time}_${i}`, after: last === undefined ? [] : [last] };
        values = { ...values, ...graph.call(name, device, one, values, call) };
        calls.push(graph.callName(name, device, one, call));
      }
      before = calls;
      all.push(...calls);
      made.push(values);
    }
    for (const output of fn.outputs ?? []) {
      const places = made.map((of) => of[output]);
      const [first] = places;
      if (!first) throw new TracingError(`define('${name}'): no part gives '${output}'.`, { name, output });
      let place = first;
      if (fn.repeat) {
        const attrs = { T: attr.type(dtypeNumber(first.spec.dtype)), N: attr.int(times), axis: attr.int(0) };
        const spec = { ...first.spec, shape: [times, ...first.spec.shape] };
        place = graph.onHost(name, `${output}_all`, 'Pack', places.map((of) => of!.node), attrs, spec); // prettier-ignore
      }
      fn.results[output] = place.spec;
      graph.fetch(name, output, place);
    }
    const attrs = { dtype: attr.type(dtypeNumber('bool')), value: attr.tensor(dtypeNumber('bool'), [], Uint8Array.of(1)) }; // prettier-ignore
    const done = graph.onHost(name, DONE, 'Const', all.map((call) => `^${call}`), attrs, { shape: [], dtype: 'bool' }); // prettier-ignore
    graph.fetch(name, DONE, done);
  }

  /** @throws TracingError where a part is not given what it takes */
  private fits(name: string, part: string, input: string, spec: TensorSpec, place: Place | undefined): void {
    if (place && describe(place.spec) === describe(spec)) return;
    throw new TracingError(
      `define('${name}'): the part '${part}' takes '${input}', ${describe(spec)}, and is given ${place ? describe(place.spec) : 'none'}.`,
      { name, part, input },
    );
  }
}
