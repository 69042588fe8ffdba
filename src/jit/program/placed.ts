/**
 * A program whose variables lie on several devices of one process. XLA compiles for one device, so that a function here is a sequence of parts, each
 * of which XLA compiles for its device, and TensorFlow carries what passes from part to part; or work that all devices begin at once, each its own,
 * and in which they tell one another sums (together.ts). A call is one run of one graph.
 */
import { ArgumentError } from '../../base/errors.js';
import { describe, dtypeNumber } from '../../runtime/data_types.js';
import { TracingError } from '../errors.js';
import { attr } from '../trace/graphdef.js';
import { DeviceGroup, type SumPlace } from '../ops/all_reduce.js';
import type { DefineOptions, LoopOptions, TensorSpec, TracedFunction, VariableSpec } from '../types.js';
import { checkName } from './function.js';
import { type Callable, type DevicesOptions, DONE, GraphProgram, type Located } from './graph_program.js';
import type { Place, ReplicaGraph, Traced } from './replicas.js';
import { allEnded, wireTogether } from './together.js';

export interface PlacedOptions extends DevicesOptions {
  /** Where sums of all devices are made. Default 'between'. */
  sums?: SumPlace;
}

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
  /** Inputs that it takes one behind another along an axis, and outputs that it gives so: the axis by the name. */
  along?: Readonly<Record<string, number>>;
  /** 'whole': all parts, and then all of them again. 'parts': a part begins as soon as it has what it takes and has done that of the time before. */
  order: 'whole' | 'parts';
}

/** Parts one after another. Each takes values of its inputs' names: those of the call, or what parts before it gave. */
export interface PlacedFunction {
  inputs: Record<string, TensorSpec>;
  parts: readonly string[];
  /** Names of values that the call gives; of one that repeats stacked, [times, ...shape], if not `along` says otherwise. */
  outputs?: readonly string[];
  /** What an input is the next time: a value's name by the input's. */
  carry?: Readonly<Record<string, string>>;
  repeat?: Repeat;
}

/** What all devices do at once, and whose outputs are those of the call. */
interface Joint {
  readonly giver: number;
  readonly inputs: Record<string, TensorSpec>;
  readonly of: (device: number) => TracedFunction;
  traced: readonly Traced[];
}

/** A function: parts, what all do at once, or a loop of that. */
interface PlacedCallable extends Callable {
  readonly parts?: PlacedFunction;
  readonly joint?: Joint;
  readonly loop?: LoopOptions;
}

/**
 * See the file. Order of use: `variable`, `part` and `define`, then `compile` once, then `call` as often as wanted, then `dispose`.
 *
 * Numbers of devices are places in `devices`. Assignments of a part take place when it ends, and later parts see them.
 */
export class PlacedProgram extends GraphProgram<PlacedCallable> {
  private readonly owners = new Map<string, Located>();
  private readonly parts = new Map<string, Part>();
  /** All devices, for sums (ops/all_reduce.ts). */
  readonly group: DeviceGroup;

  constructor(options: PlacedOptions) {
    super(options);
    const { devices, sums = 'between', gpu } = options;
    this.group = new DeviceGroup(devices.length, sums, gpu);
  }

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

  /** Adds a function of parts. */
  define(name: string, fn: PlacedFunction): void {
    this.add(name, { parts: fn });
  }

  /**
   * Adds a function that all devices begin at once, over their own variables, with the same sums in the same order.
   * @param of what a device does @param giver whose outputs are those of the call
   */
  defineTogether(
    name: string,
    inputs: Record<string, TensorSpec>,
    giver: number,
    of: (device: number) => TracedFunction,
  ): void {
    this.add(name, { joint: { giver, inputs, of, traced: [] } });
  }

  /**
   * Adds a function that repeats such a one. Where sums are between functions, its steps are calls one after another, as many as there are; such loops
   * know no `count`, `stop` and `index`.
   */
  defineLoop(name: string, loop: LoopOptions): void {
    this.add(name, { loop });
  }

  private add(name: string, fn: Omit<PlacedCallable, keyof Callable>): void {
    checkName('function', name);
    if (this.callables.has(name)) throw new TracingError(`define('${name}'): the name is taken.`, { name });
    this.callables.set(name, { ...fn, given: {}, results: {}, compiled: false });
  }

  /** Traces, hands the graph over and fills the variables. @throws what tracing throws, DeviceError where TensorFlow does not take it */
  async compile(): Promise<void> {
    await this.loaded(async () => {
      const traced = new Map<string, Traced>();
      for (const [name, { parts, joint }] of this.callables) {
        for (const part of parts?.parts ?? []) if (!traced.has(part)) traced.set(part, await this.trace(part));
        if (!joint) continue;
        joint.traced = await this.traceJoint(name, joint);
      }
      for (const [name, fn] of this.callables) {
        if (fn.parts) this.wire(name, fn, fn.parts, traced);
        else await this.wireJoint(name, fn);
      }
    });
  }

  /** @throws TracingError where devices have not as many sums: they would wait for one another */
  private async traceJoint(name: string, { inputs, of }: Joint): Promise<Traced[]> {
    const { graph, group } = this;
    const first = group.next;
    const counts: number[] = [];
    const each: Traced[] = [];
    for (let k = 0; k < group.size; k++) {
      group.countFrom(first);
      each.push(await graph.trace(`${name}.${k}`, inputs, of(k), {}, k));
      counts.push(group.next - first);
    }
    if (new Set(counts).size === 1) return each;
    throw new TracingError(`define('${name}'): devices have different numbers of sums: ${counts.join(', ')}.`, {
      name,
      counts,
    });
  }

  /** The nodes of what all devices do at once, or of a loop of that. */
  private async wireJoint(name: string, fn: PlacedCallable): Promise<void> {
    const { graph, group } = this;
    const { loop } = fn;
    const joint = loop ? this.callables.get(loop.body)?.joint : fn.joint;
    if (!joint) throw new TracingError(`defineLoop('${name}'): there is no function '${loop!.body}'.`, { name });
    const { giver } = joint;
    let { traced } = joint;
    const unrolled = loop && traced.some(({ clusters }) => clusters) ? loop : null;
    if (loop && !unrolled) {
      const each: Traced[] = [];
      for (const [k, body] of traced.entries()) each.push(await graph.traceLoop(`${name}.${k}`, body, loop, k));
      traced = each;
    }
    wireTogether(graph, name, fn, { traced, group, giver, unrolled });
  }

  private trace(name: string): Promise<Traced> {
    const part = this.parts.get(name);
    if (!part) throw new TracingError(`${this.options.name} has no part '${name}'.`, { name });
    return this.graph.trace(name, part.inputs, part.fn, part.options, part.device);
  }

  /** The nodes of a function of parts. */
  private wire(name: string, callable: Callable, fn: PlacedFunction, traced: ReadonlyMap<string, Traced>): void {
    const { graph } = this;
    const { times, order } = fn.repeat ?? { times: 1, order: 'whole' };
    graph.entry(name);
    const { feeds, slices } = this.inputs(name, callable, fn);
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
      const place = this.output(name, output, fn, made);
      callable.results[output] = place.spec;
      graph.fetch(name, output, place);
    }
    graph.fetch(name, DONE, allEnded(graph, name, all));
  }

  /** What a function of parts is fed, and what of it each time has. */
  private inputs(
    name: string,
    callable: Callable,
    { inputs, repeat }: PlacedFunction,
  ): { feeds: Record<string, Place>; slices: Record<string, Place[]> } {
    const { graph } = this;
    const { times, each = [], along = {} } = repeat ?? { times: 1 };
    const feeds: Record<string, Place> = {};
    const slices: Record<string, Place[]> = {};
    for (const [input, spec] of Object.entries(inputs)) {
      const axis = repeat && along[input];
      const stacked = axis === undefined && repeat !== undefined && each.includes(input);
      const given = axis !== undefined ? lengthened(spec, axis, times) : stacked ? { ...spec, shape: [times, ...spec.shape] } : spec; // prettier-ignore
      callable.given[input] = given;
      feeds[input] = graph.feed(name, 0, input, given);
      if (axis === undefined && !stacked) continue;
      const T = attr.type(dtypeNumber(spec.dtype));
      const { node } = feeds[input];
      const cut = stacked
        ? graph.onHost(name, `${input}_each`, 'Unpack', [node], { T, num: attr.int(times), axis: attr.int(0) }, spec)
        : graph.onHost(name, `${input}_each`, 'Split', [axisNode(graph, name, input, axis!), node], { T, num_split: attr.int(times) }, spec); // prettier-ignore
      slices[input] = Array.from({ length: times }, (_, i) => ({ node: `${cut.node}:${i}`, spec }));
    }
    return { feeds, slices };
  }

  /** What a function of parts gives under a name. @param made values of each time */
  private output(
    name: string,
    output: string,
    { repeat }: PlacedFunction,
    made: readonly Record<string, Place>[],
  ): Place {
    const { graph } = this;
    const [first] = made.map((of) => of[output]);
    if (!first) throw new TracingError(`define('${name}'): no part gives '${output}'.`, { name, output });
    if (!repeat) return first;
    const { times, along = {} } = repeat;
    const nodes = made.map((of) => of[output]!.node);
    const [T, N] = [attr.type(dtypeNumber(first.spec.dtype)), attr.int(times)];
    const axis = along[output];
    if (axis === undefined) {
      const spec = { ...first.spec, shape: [times, ...first.spec.shape] };
      return graph.onHost(name, `${output}_all`, 'Pack', nodes, { T, N, axis: attr.int(0) }, spec);
    }
    const inputs = [...nodes, axisNode(graph, name, output, axis)];
    const attrs = { T, N, Tidx: attr.type(dtypeNumber('int32')) };
    return graph.onHost(name, `${output}_all`, 'ConcatV2', inputs, attrs, lengthened(first.spec, axis, times));
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

/** So many tensors one behind another. */
const lengthened = (spec: TensorSpec, axis: number, times: number): TensorSpec => ({
  ...spec,
  shape: spec.shape.map((n, i) => (i === axis ? n * times : n)),
});

/** An axis as ops take it. */
function axisNode(graph: ReplicaGraph, name: string, of: string, axis: number): string {
  const int32 = dtypeNumber('int32');
  const value = attr.tensor(int32, [], new Uint8Array(Int32Array.of(axis).buffer));
  const attrs = { dtype: attr.type(int32), value };
  return graph.onHost(name, `${of}_axis`, 'Const', [], attrs, { shape: [], dtype: 'int32' }).node;
}
