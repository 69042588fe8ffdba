/**
 * A program whose variables lie on several devices of one process. XLA compiles for one device, so that a function here is a sequence of parts, each
 * of which XLA compiles for its device; TensorFlow carries what passes from part to part. A call is one run of one graph.
 */
import { ArgumentError, DisposedError } from '../../base/errors.js';
import { MessageWriter } from '../../base/proto.js';
import { describe, dtypeBytes, dtypeNumber, sizeOf } from '../../runtime/data_types.js';
import { TracingError } from '../errors.js';
import { attr } from '../trace/graphdef.js';
import type { Bytes, CompileHook, DefineOptions, InputValue, TensorSpec, TracedFunction, VariableSpec } from '../types.js'; // prettier-ignore
import { inputValues, type OutputData, outputValues, typedValues } from './call_values.js';
import { checkName } from './function.js';
import { firstCall } from './functions.js';
import { type Place, ReplicaGraph, type Traced } from './replicas.js';

export interface PlacedOptions {
  name: string;
  /** Numbers of the devices: of GPUs, or of logical devices of the processor. */
  devices: readonly number[];
  gpu: boolean;
  memoryAdvice?: string;
  onCompile?: CompileHook;
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
interface Callable extends PlacedFunction {
  given: Record<string, TensorSpec>;
  results: Record<string, TensorSpec>;
  compiled: boolean;
}

/** What says that all parts have ended. */
const DONE = 'done';

/** A ConfigProto: for a processor as many devices as there must be, and no rewrites of the graph, as for other programs. */
function configOf(devices: readonly number[], gpu: boolean): Uint8Array {
  if (gpu) return new Uint8Array(0);
  const cpus = new MessageWriter().bytes(1, new MessageWriter().bytes(1, 'CPU').int(2, Math.max(...devices) + 1));
  // field 10, graph_options: rewrite_options.disable_meta_optimizer
  const noRewrites = new MessageWriter().bytes(10, new MessageWriter().bytes(10, new MessageWriter().int(19, 1)));
  return Buffer.concat([cpus.finish(), noRewrites.finish()]);
}

const LOCAL = '/job:localhost/replica:0/task:0/device:';

/**
 * See the file. Order of use: `variable`, `part` and `define`, then `compile` once, then `call` as often as wanted, then `dispose`.
 *
 * Numbers of devices are places in `devices`. Assignments of a part take place when it ends, and later parts see them.
 */
export class PlacedProgram {
  private readonly owners = new Map<string, number>();
  private readonly specs = new Map<string, VariableSpec>();
  private readonly parts = new Map<string, Part>();
  private readonly callables = new Map<string, Callable>();
  private readonly graph: ReplicaGraph;
  private ready = false;
  private disposed = false;

  constructor(private readonly options: PlacedOptions) {
    const { name, devices, gpu, memoryAdvice, onCompile } = options;
    this.graph = new ReplicaGraph({
      name,
      placements: devices.map((index) => ({
        device: `${LOCAL}${gpu ? 'GPU' : 'CPU'}:${index}`,
        host: `${LOCAL}CPU:0`,
      })),
      config: configOf(devices, gpu),
      target: '',
      memoryAdvice,
      onCompile,
      alive: () => this.alive(),
    });
  }

  /** Declares a variable of a device. @throws TracingError for a name that is taken or not allowed */
  variable(name: string, spec: VariableSpec, device: number): void {
    checkName('variable', name);
    if (this.specs.has(name)) throw new TracingError(`variable('${name}'): the name is taken.`, { name });
    this.specs.set(name, spec);
    this.owners.set(name, device);
    this.graph.variable(device, name, spec);
  }

  /** The device of a variable. */
  deviceOf(name: string): number {
    this.spec(name);
    return this.owners.get(name)!;
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
    try {
      const traced = new Map<string, Traced>();
      for (const fn of this.callables.values())
        for (const name of fn.parts) if (!traced.has(name)) traced.set(name, await this.trace(name));
      for (const [name, fn] of this.callables) this.wire(name, fn, traced);
      await this.graph.load();
      this.alive();
      this.ready = true;
    } catch (error) {
      this.dispose();
      throw error;
    }
  }

  private trace(name: string): Promise<Traced> {
    const part = this.parts.get(name);
    if (!part) throw new TracingError(`${this.options.name} has no part '${name}'.`, { name });
    return this.graph.trace(name, part.inputs, part.fn, part.options, part.device);
  }

  /** The nodes of a function. */
  private wire(name: string, fn: Callable, traced: ReadonlyMap<string, Traced>): void {
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

  /**
   * Runs a function; its first run compiles its parts. Calls are done in the order they come, and the event loop is free meanwhile.
   * @param wanted the outputs to hand over. Default: all
   * @throws ArgumentError for inputs that do not fit, DeviceError when TensorFlow fails, DisposedError when the program is disposed of before
   */
  async call(
    name: string,
    inputs: Record<string, InputValue> = {},
    wanted?: readonly string[],
  ): Promise<Record<string, OutputData>> {
    this.usable();
    const fn = this.callables.get(name);
    if (!fn) throw new ArgumentError(`${this.options.name} has no function '${name}'.`, { name });
    const values = inputValues(name, fn.given, inputs);
    const fed = Object.fromEntries(Object.keys(fn.given).map((input, i) => [input, values[i]!]));
    const outputs = wanted ?? Object.keys(fn.results);
    const unknown = outputs.find((output) => !fn.results[output]);
    if (unknown !== undefined)
      throw new ArgumentError(`call('${name}'): there is no output '${unknown}'.`, { name, output: unknown });
    const { ended, failed } = firstCall(fn, name, this.options.onCompile);
    try {
      const results = await this.graph.execute(name, fed, [...outputs, DONE]);
      ended();
      return Object.fromEntries(outputs.map((output, i) => [output, outputValues(fn.results[output]!.dtype, results[i]!)])); // prettier-ignore
    } catch (error) {
      failed();
      throw error;
    }
  }

  /** Sets one variable from bytes of its declared type, at once. @throws ArgumentError for too many or too few */
  assign(name: string, bytes: Bytes): void {
    this.usable();
    this.graph.writeSync(this.deviceOf(name), name, this.checked(name, bytes));
  }

  /** Sets variables, whose bytes are asked for in turn. */
  async assignAll(values: Record<string, () => Bytes | Promise<Bytes>>): Promise<void> {
    for (const [name, of] of Object.entries(values)) {
      const bytes = this.checked(name, await of());
      this.usable();
      await this.graph.write(this.deviceOf(name), name, bytes);
    }
  }

  /** The bytes of variables, in their declared types. */
  async readAllBytes(names: readonly string[]): Promise<Uint8Array[]> {
    const all: Uint8Array[] = [];
    for (const name of names) {
      this.usable();
      all.push(await this.graph.read(this.deviceOf(name), name));
    }
    return all;
  }

  /** The values of variables; float32 of bfloat16. */
  async readAll(names: readonly string[]): Promise<(Float32Array | Int32Array | Uint8Array | BigInt64Array)[]> {
    const all = await this.readAllBytes(names);
    return names.map((name, i) => typedValues(this.spec(name).dtype, all[i]!));
  }

  /** Sets variables to zeros. */
  async zeroAll(names: readonly string[]): Promise<void> {
    for (const name of names) {
      this.usable();
      await this.graph.clear(this.deviceOf(name), [name]);
    }
  }

  /** Frees the session and all variables, once a call that runs has ended. Idempotent; any later use throws DisposedError. */
  dispose(): void {
    if (this.disposed) return;
    this.disposed = true;
    this.graph.dispose(true);
  }

  private alive(): void {
    if (this.disposed) throw new DisposedError(`${this.options.name} was disposed.`);
  }

  private usable(): void {
    this.alive();
    if (!this.ready) throw new TracingError(`${this.options.name}: call() and variables need compile() first.`);
  }

  private spec(name: string): VariableSpec {
    const spec = this.specs.get(name);
    if (!spec) throw new ArgumentError(`${this.options.name} has no variable '${name}'.`, { name });
    return spec;
  }

  private checked(name: string, bytes: Bytes): Bytes {
    const { shape, dtype } = this.spec(name);
    const expected = sizeOf(shape) * dtypeBytes(dtype);
    if (bytes.byteLength === expected) return bytes;
    throw new ArgumentError(`Variable '${name}': got ${bytes.byteLength} bytes, expected ${expected}.`, {
      name,
      expected,
    });
  }
}
