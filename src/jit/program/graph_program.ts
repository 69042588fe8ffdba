/** What programs on several devices have in common: functions that are runs of one graph, and variables that lie on devices. */
import { ArgumentError, DisposedError } from '../../base/errors.js';
import { MessageWriter } from '../../base/proto.js';
import { dtypeBytes, sizeOf } from '../../runtime/data_types.js';
import { TracingError } from '../errors.js';
import type { Bytes, CompileHook, HeldBytes, InputValue, TensorSpec, VariableSpec } from '../types.js';
import { inputValues, type OutputData, outputValues, typedValues } from './call_values.js';
import { fillInTurn } from './filling.js';
import { firstCall } from './functions.js';
import { ReplicaGraph } from './replicas.js';

export interface DevicesOptions {
  name: string;
  /** Numbers of the devices: of GPUs, or of logical devices of the processor. */
  devices: readonly number[];
  gpu: boolean;
  memoryAdvice?: string;
  onCompile?: CompileHook;
}

/** A function as it is called. */
export interface Callable {
  given: Record<string, TensorSpec>;
  results: Record<string, TensorSpec>;
  compiled: boolean;
}

/** A variable of one device. */
export interface Located {
  readonly device: number;
  readonly name: string;
  readonly spec: VariableSpec;
}

/** What says that all calls of a run have ended. */
export const DONE = 'done';

/** A ConfigProto: for a processor as many devices as there must be, and no rewrites of the graph, as for other programs. */
function configOf(devices: readonly number[], gpu: boolean): Uint8Array {
  if (gpu) return new Uint8Array(0);
  const cpus = new MessageWriter().bytes(1, new MessageWriter().bytes(1, 'CPU').int(2, Math.max(...devices) + 1));
  // field 10, graph_options: rewrite_options.disable_meta_optimizer
  const noRewrites = new MessageWriter().bytes(10, new MessageWriter().bytes(10, new MessageWriter().int(19, 1)));
  return Buffer.concat([cpus.finish(), noRewrites.finish()]);
}

const LOCAL = '/job:localhost/replica:0/task:0/device:';

/** See the file. A program declares its variables and functions, loads the graph, and is then called. */
export abstract class GraphProgram<F extends Callable = Callable> {
  protected readonly callables = new Map<string, F>();
  protected readonly graph: ReplicaGraph;
  protected ready = false;
  private disposed = false;

  constructor(protected readonly options: DevicesOptions) {
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

  /** Where a variable lies, the first place first; none where there is no such variable. */
  protected abstract located(name: string): readonly Located[];

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

  /** Sets one variable, wherever it lies, from bytes of its declared type, at once. @throws ArgumentError for too many or too few */
  assign(name: string, bytes: Bytes): void {
    this.usable();
    for (const { device, name: own, spec } of this.places(name))
      this.graph.writeSync(device, own, checked(name, spec, bytes));
  }

  /** Sets variables, wherever they lie; see fillInTurn(). */
  async assignAll(values: Record<string, () => Bytes | HeldBytes | Promise<Bytes | HeldBytes>>): Promise<void> {
    const all = Object.entries(values).map(([name, bytes]) => {
      const places = this.places(name);
      const { spec } = places[0]!;
      const set = (given: Bytes | HeldBytes): Promise<unknown> => {
        this.usable();
        const own = checked(name, spec, given);
        return Promise.all(places.map(({ device, name }) => this.graph.write(device, name, own)));
      };
      return { spec, bytes, set };
    });
    await fillInTurn(all);
  }

  /** The bytes of variables, in their declared types; of one that lies in several places those of the first. */
  async readAllBytes(names: readonly string[]): Promise<Uint8Array[]> {
    this.usable();
    return Promise.all(
      names.map((name) => {
        const { device, name: own } = this.places(name)[0]!;
        return this.graph.read(device, own);
      }),
    );
  }

  /** The values of variables; float32 of bfloat16. */
  async readAll(names: readonly string[]): Promise<(Float32Array | Int32Array | Uint8Array | BigInt64Array)[]> {
    const all = await this.readAllBytes(names);
    return names.map((name, i) => typedValues(this.places(name)[0]!.spec.dtype, all[i]!));
  }

  /** Sets variables to zeros, wherever they lie. */
  async zeroAll(names: readonly string[]): Promise<void> {
    this.usable();
    const places = names.flatMap((name) => this.places(name));
    await Promise.all(places.map(({ device, name: own }) => this.graph.clear(device, [own])));
  }

  /** Frees the session and all variables, once a call that runs has ended. Idempotent; any later use throws DisposedError. */
  dispose(): void {
    if (this.disposed) return;
    this.disposed = true;
    this.graph.dispose(true);
  }

  /** Hands the graph over and fills the variables; where that fails, nothing is left. */
  protected async loaded(make: () => Promise<void>): Promise<void> {
    try {
      await make();
      await this.graph.load();
      this.alive();
      this.ready = true;
    } catch (error) {
      this.dispose();
      throw error;
    }
  }

  protected alive(): void {
    if (this.disposed) throw new DisposedError(`${this.options.name} was disposed.`);
  }

  private usable(): void {
    this.alive();
    if (!this.ready) throw new TracingError(`${this.options.name}: call() and variables need compile() first.`);
  }

  private places(name: string): readonly Located[] {
    const places = this.located(name);
    if (places.length === 0) throw new ArgumentError(`${this.options.name} has no variable '${name}'.`, { name });
    return places;
  }
}

function checked<T extends Bytes | HeldBytes>(name: string, { shape, dtype }: VariableSpec, bytes: T): T {
  const expected = sizeOf(shape) * dtypeBytes(dtype);
  if (bytes.byteLength === expected) return bytes;
  throw new ArgumentError(`Variable '${name}': got ${bytes.byteLength} bytes, expected ${expected}.`, {
    name,
    expected,
  });
}
