/** A program: named variables that live on the device, and functions over them that XLA compiles. */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError, DisposedError } from '../../base/errors.js';
import { TracingError } from '../errors.js';
import { arrayInput, type Call, callOf, tensorInput, typedValues } from './call_values.js';
import { describe, dtypeBytes, dtypeNumber, sizeOf } from '../../runtime/data_types.js';
import { checkName, nodeName, traceFunction, type Traced } from './function.js';
import { loopBody } from './loop.js';
import { nodeBackend, wrapNative, type NativeTensor } from '../../runtime/binding.js';
import { graphFolder, keepGraph, keptSignatures, withTemporaryFolder } from './graph_cache.js';
import { Session, writeGraph } from './session.js';
import type {
  Bytes,
  DefineOptions,
  InputValue,
  LoopOptions,
  ProgramOptions,
  TensorSpec,
  TracedFunction,
  VariableSpec,
} from '../types.js';

type OutputData = Float32Array | Int32Array | Uint8Array;

interface Callable {
  build: () => Traced;
  /** Once traced. */
  traced: Traced | null;
  /** Once traced, or known from a kept graph. */
  call: Call | null;
  compiled: boolean;
}

/** Bytes of zeros from which they are made on the device. */
const MANY_ZEROS = 2 ** 28;

/**
 * Named variables on the device and compiled functions over them. Needs the `tensorflow` backend.
 *
 * Order of use: `variable` and `define`, then `compile` once, then `run` as often as wanted, then `dispose`.
 *
 * @example
 * const program = new Program();
 * program.variable('total', { shape: [2], dtype: 'float32' });
 * program.define('add', { x: { shape: [2], dtype: 'float32' } }, ({ x }, { total }) => {
 *   const sum = tf.add(total, x);
 *   return { outputs: { sum }, assign: { total: sum } };
 * });
 * await program.compile();
 * const { sum } = program.run('add', { x: [1, 2] });
 * program.dispose();
 */
export class Program {
  private readonly specs = new Map<string, VariableSpec>();
  private readonly nodeNames = new Map<string, string>();
  private readonly functions = new Map<string, Callable>();
  private session: Session | null = null;
  private state: 'open' | 'ready' | 'disposed' = 'open';

  constructor(readonly options: ProgramOptions = {}) {}

  /**
   * Declares a variable.
   * @throws TracingError after compile(), when the name is taken or not allowed, or when a dimension is not a positive integer
   */
  variable(name: string, spec: VariableSpec): void {
    this.expect('open', 'variable');
    checkName('variable', name);
    const clash = this.nodeNames.get(nodeName(name));
    if (clash !== undefined) throw new TracingError(`variable('${name}'): the name is taken by '${clash}'.`, { name });
    if (!spec.shape.every((d) => Number.isInteger(d) && d > 0)) {
      throw new TracingError(
        `variable('${name}'): the shape is [${spec.shape.join(',')}], expected positive integers.`,
        { name },
      );
    }
    this.nodeNames.set(nodeName(name), name);
    this.specs.set(name, spec);
  }

  /** Declared variables, in order. */
  variables(): ReadonlyMap<string, VariableSpec> {
    return this.specs;
  }

  /**
   * Traces `fn` on symbolic tensors and adds it under `name`. Variables keep their values while it runs: assignments
   * take place together when it ends. A variable costs nothing in functions that do not touch it, and a function costs little
   * before its first run.
   * @param inputs name, shape and dtype of what run() takes
   * @throws TracingError when `fn` reads a value, uses a tensor from outside or an op that cannot be traced
   */
  define(name: string, inputs: Record<string, TensorSpec>, fn: TracedFunction, options: DefineOptions = {}): void {
    this.add(name, () => traceFunction(name, inputs, this.specs, (given, vars) => fn(given, vars()), fn, options));
  }

  /**
   * Adds a function that repeats another inside the device. Its inputs are those of the body without `index`; it returns
   * each output of the body stacked over the iterations, [steps, ...shape] (zeros where the loop stopped before), and
   * `iterations` (int32 scalar). Assignments of the body carry over from iteration to iteration.
   * @throws TracingError when an option names what the body does not have
   */
  defineLoop(name: string, options: LoopOptions): void {
    const bodyOf = this.callable(options.body);
    this.add(name, () => {
      const body = this.traced(options.body, bodyOf);
      const loop = loopBody(name, body, options);
      const never: TracedFunction = () => {
        throw new TracingError(`A loop ('${name}') cannot be the body of another.`, { name });
      };
      return traceFunction(name, loop.inputs, this.specs, loop.body, never, { xla: body.xla });
    });
  }

  /**
   * Hands the graph to TensorFlow and fills the variables. Functions are compiled by XLA at their first run.
   * @throws ArgumentError when the bytes of a variable have the wrong length
   */
  async compile(): Promise<void> {
    this.load();
    const began = performance.now();
    try {
      const made = this.zeroedThere();
      const values: Record<string, () => Bytes | Promise<Bytes>> = {};
      for (const [name, { init }] of this.specs)
        if (!made.has(name)) values[name] = typeof init === 'function' ? init : (): Bytes => this.zeros(name);
      await this.assignAll(values);
      this.zero([...made]);
    } catch (error) {
      this.dispose();
      throw error;
    }
    this.options.onCompile?.(this.label, 'upload', performance.now() - began);
  }

  /** compile() of a program without `init` bytes, at once. @throws TracingError when a variable has them */
  compileSync(): void {
    for (const [name, { init }] of this.specs) {
      if (typeof init === 'function')
        throw new TracingError(`compileSync: '${name}' is filled by a function; use compile().`, { name });
    }
    const session = this.load();
    const made = this.zeroedThere();
    for (const name of this.specs.keys()) if (!made.has(name)) session.set(name, this.zeros(name));
    session.clear([...made]);
  }

  /** Variables whose zeros are made on the device: where there are many, such as those that stand for many rows. Few are sooner handed over. */
  private zeroedThere(): ReadonlySet<string> {
    const zeros = [...this.specs].filter(([, { init }]) => typeof init !== 'function');
    const bytes = zeros.reduce((sum, [, { shape, dtype }]) => sum + sizeOf(shape) * dtypeBytes(dtype), 0);
    return new Set(bytes > MANY_ZEROS ? zeros.map(([name]) => name) : []);
  }

  /**
   * Runs a function; its first run compiles it. Tensors returned are on the tensorflow backend and the caller's to
   * dispose (a tidy does).
   * @param inputs one value per declared input; typed arrays are shared with TensorFlow while it runs
   * @throws ArgumentError for inputs that do not fit, DeviceError when TensorFlow fails; the program stays usable
   */
  run(name: string, inputs: Record<string, InputValue> = {}): Record<string, tf.Tensor> {
    const natives = this.execute(name, inputs);
    const { outputs } = this.callable(name).call!;
    return Object.fromEntries(outputs.map((output, i) => [output, wrapNative(natives[i]!)]));
  }

  /** As run(), but outputs come as typed arrays and no tensor is left behind: the cheaper form for small outputs. */
  call(name: string, inputs: Record<string, InputValue> = {}): Record<string, OutputData> {
    const natives = this.execute(name, inputs);
    const { binding } = nodeBackend();
    const { outputs } = this.callable(name).call!;
    try {
      return Object.fromEntries(
        outputs.map((output, i) => [output, binding.tensorDataSync(natives[i]!.id) as OutputData]),
      );
    } finally {
      for (const native of natives) binding.deleteTensor(native.id);
    }
  }

  /** Sets one variable from bytes of its declared dtype, or from a tensor. @throws ArgumentError when it does not fit */
  assign(name: string, value: Bytes | tf.Tensor): void {
    const spec = this.spec(name);
    let bytes: Bytes;
    if (value instanceof tf.Tensor) {
      if (value.dtype !== spec.dtype || value.shape.join() !== spec.shape.join()) {
        throw new ArgumentError(
          `assign('${name}'): got ${value.dtype}[${value.shape.join(',')}], expected ${describe(spec)}.`,
          { name },
        );
      }
      bytes = value.dataSync();
    } else bytes = value;
    this.ready().set(name, this.checked(name, bytes));
  }

  /**
   * Sets many variables. Bytes are asked for in turn, and the bytes of one are copied to the device before the next are
   * asked for: host memory holds one variable at a time.
   */
  async assignAll(values: Record<string, () => Bytes | Promise<Bytes>>): Promise<void> {
    for (const [name, bytes] of Object.entries(values)) {
      const session = this.ready();
      session.set(name, this.checked(name, await bytes()));
    }
  }

  /** The value of a variable: Float32Array for float32 and bfloat16 (widened), Int32Array for int32, Uint8Array for uint8, BigInt64Array for int64. */
  read(name: string): Float32Array | Int32Array | Uint8Array | BigInt64Array {
    return typedValues(this.spec(name).dtype, this.readBytes(name));
  }

  /** The bytes of a variable in its declared dtype, a fresh copy. */
  readBytes(name: string): Uint8Array {
    this.spec(name);
    return this.ready().read(name);
  }

  /** Sets variables (all of them without `names`) to zeros, on the device. */
  zero(names: readonly string[] = [...this.specs.keys()]): void {
    for (const name of names) this.spec(name);
    this.ready().clear(names);
  }

  /** Frees the session and all variables. Idempotent; any later use throws DisposedError. */
  dispose(): void {
    this.session?.dispose();
    this.session = null;
    this.state = 'disposed';
  }

  private load(): Session {
    this.expect('open', 'compile');
    const { graphCache } = this.options;
    const folder = graphCache ? graphFolder(graphCache, this.specs, [...this.functions.keys()]) : null;
    this.session = (folder === null ? null : this.kept(folder)) ?? this.fresh(folder);
    this.state = 'ready';
    return this.session;
  }

  /** The session of a kept graph, or null when there is none that TensorFlow takes. */
  private kept(folder: string): Session | null {
    const signatures = keptSignatures(folder, [...this.functions.keys()]);
    if (!signatures) return null;
    try {
      const session = this.timed('load', () => new Session(this.label, this.specs, folder, this.options.memoryAdvice));
      for (const [name, fn] of this.functions) fn.call = callOf(name, signatures[name]!);
      return session;
    } catch {
      return null; // damaged: it is written anew
    }
  }

  /** The session of the functions as traced now. @param keep where the graph is to be kept, if at all */
  private fresh(keep: string | null): Session {
    const traced = [...this.functions].map(([name, fn]) => this.traced(name, fn));
    return this.timed('load', () =>
      withTemporaryFolder((folder) => {
        writeGraph(folder, this.specs, traced);
        const session = new Session(this.label, this.specs, folder, this.options.memoryAdvice);
        const signatures = traced.map(({ name, inputs, outputs }) => [name, { inputs, outputs }] as const);
        if (keep !== null) keepGraph(folder, keep, Object.fromEntries(signatures));
        return session;
      }),
    );
  }

  private traced(name: string, fn: Callable): Traced {
    if (!fn.traced) {
      fn.traced = this.timed('trace', fn.build, name);
      fn.call = callOf(name, fn.traced);
    }
    return fn.traced;
  }

  private get label(): string {
    return this.options.name ?? 'program';
  }

  private expect(state: 'open' | 'ready', what: string): void {
    if (this.state === 'disposed')
      throw new DisposedError(`${this.label} was disposed; ${what}() is not possible any more.`);
    if (this.state === state) return;
    throw new TracingError(
      state === 'open'
        ? `${this.label}: ${what}() must come before compile(): a loaded graph cannot grow.`
        : `${this.label}: ${what}() needs compile() first.`,
    );
  }

  private ready(): Session {
    this.expect('ready', 'use');
    return this.session!;
  }

  private spec(name: string): VariableSpec {
    const spec = this.specs.get(name);
    if (!spec) throw new ArgumentError(`${this.label} has no variable '${name}'.`, { name });
    return spec;
  }

  private callable(name: string): Callable {
    const fn = this.functions.get(name);
    if (!fn) {
      throw new ArgumentError(
        `${this.label} has no function '${name}', only ${[...this.functions.keys()].join(', ') || 'none'}.`,
        { name },
      );
    }
    return fn;
  }

  private add(name: string, build: () => Traced): void {
    this.expect('open', 'define');
    checkName('function', name);
    if (this.functions.has(name)) throw new TracingError(`define('${name}'): the name is taken.`, { name });
    const fn: Callable = { build, traced: null, call: null, compiled: false };
    if (!this.options.graphCache) this.traced(name, fn);
    this.functions.set(name, fn);
  }

  private timed<T>(phase: 'trace' | 'load', work: () => T, name = this.label): T {
    const began = performance.now();
    const result = work();
    this.options.onCompile?.(name, phase, performance.now() - began);
    return result;
  }

  private zeros(name: string): Bytes {
    const { shape, dtype } = this.spec(name);
    return new Uint8Array(sizeOf(shape) * dtypeBytes(dtype));
  }

  private checked(name: string, bytes: Bytes): Bytes {
    const spec = this.spec(name);
    const expected = sizeOf(spec.shape) * dtypeBytes(spec.dtype);
    if (bytes.byteLength !== expected) {
      throw new ArgumentError(
        `Variable '${name}': got ${bytes.byteLength} bytes, expected ${expected} for ${describe(spec)}.`,
        {
          name,
          got: bytes.byteLength,
          expected,
        },
      );
    }
    return bytes;
  }

  private execute(name: string, inputs: Record<string, InputValue>): NativeTensor[] {
    const session = this.ready();
    const fn = this.callable(name);
    const call = fn.call!;
    const made: number[] = [];
    try {
      const ids = Object.entries(call.inputs).map(([input, spec]) => {
        const value = inputs[input];
        if (value === undefined)
          throw new ArgumentError(`run('${name}'): the input '${input}' is missing.`, { name, input });
        if (value instanceof tf.Tensor) return tensorInput(name, input, spec, value);
        const id = nodeBackend().binding.createTensor(
          spec.shape,
          dtypeNumber(spec.dtype),
          arrayInput(name, input, spec, value),
        );
        made.push(id);
        return id;
      });
      const began = fn.compiled ? 0 : performance.now();
      if (!fn.compiled) this.options.onCompile?.(name, 'compile', null);
      const natives = session.execute(`run('${name}')`, ids, call.feeds, call.fetches);
      if (!fn.compiled) {
        fn.compiled = true;
        this.options.onCompile?.(name, 'compile', performance.now() - began);
      }
      return call.outputs.length > 0 ? natives : this.drop(natives);
    } finally {
      for (const id of made) nodeBackend().binding.deleteTensor(id);
    }
  }

  private drop(natives: NativeTensor[]): NativeTensor[] {
    for (const { id } of natives) nodeBackend().binding.deleteTensor(id);
    return [];
  }
}
