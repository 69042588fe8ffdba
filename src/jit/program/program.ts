/** A program: named variables that live on the device, and functions over them that XLA compiles. */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError, DisposedError } from '../../base/errors.js';
import { atOnce, inPieces, type Pieces } from '../../base/pieces.js';
import { nodeBackend, wrapBytes } from '../../runtime/binding.js';
import { describe, dtypeBytes, sizeOf } from '../../runtime/data_types.js';
import { TracingError } from '../errors.js';
import type {
  Bytes,
  DefineOptions,
  HeldBytes,
  InputValue,
  LoopOptions,
  ProgramOptions,
  TensorSpec,
  TracedFunction,
  VariableSpec,
} from '../types.js';
import { type OutputData, outputValues, typedValues } from './call_values.js';
import { checkName, nodeName, traceFunction, type Traced } from './function.js';
import { Functions, type Result, timed } from './functions.js';
import { graphFolder, keepGraph, keptGraph } from './graph_cache.js';
import { loopBody } from './loop.js';
import { checkProgram, DEFINE_TABLE, INPUT_TABLE, LOOP_TABLE, VARIABLE_TABLE } from './option_rules.js';
import { type GraphOptions, type OuterGraph, outerGraph } from './outer_graph.js';
import { fillInTurn } from './filling.js';
import { Session } from './session.js';

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
 * const { sum } = await program.run('add', { x: [1, 2] });
 * program.dispose();
 */
export class Program {
  private readonly specs = new Map<string, VariableSpec>();
  private readonly nodeNames = new Map<string, string>();
  private readonly functions: Functions;
  private session: Session | null = null;
  /** Whether a function is not compiled: TensorFlow runs its ops. */
  private runsOps = false;
  private state: 'open' | 'loading' | 'ready' | 'disposed' = 'open';

  constructor(readonly options: ProgramOptions = {}) {
    checkProgram(options);
    this.functions = new Functions(this.label, options);
  }

  /**
   * Declares a variable.
   * @throws TracingError after compile(), when the name is taken or not allowed, or when a dimension is not a positive integer
   */
  variable(name: string, spec: VariableSpec): void {
    VARIABLE_TABLE.check(spec);
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
    DEFINE_TABLE.check(options);
    for (const spec of Object.values(inputs)) INPUT_TABLE.check(spec);
    this.runsOps ||= options.xla === false;
    this.add(name, () => traceFunction(name, inputs, this.specs, (given, vars) => fn(given, vars()), fn, options));
  }

  /**
   * Adds a function that repeats another inside the device. Its inputs are those of the body without `index`; it returns
   * each output of the body stacked over the iterations, [steps, ...shape] (zeros where the loop stopped before), and
   * `iterations` (int32 scalar). Assignments of the body carry over from iteration to iteration.
   * @throws TracingError when an option names what the body does not have
   */
  defineLoop(name: string, options: LoopOptions): void {
    LOOP_TABLE.check(options);
    this.functions.check(options.body);
    const { functions, specs } = this;
    this.add(name, function* () {
      const body = functions.traced(options.body);
      const loop = loopBody(name, body, options);
      const never: TracedFunction = () => {
        throw new TracingError(`A loop ('${name}') cannot be the body of another.`, { name });
      };
      return yield* traceFunction(name, loop.inputs, specs, loop.body, never, { xla: body.xla });
    });
  }

  /**
   * Hands the graph to TensorFlow and fills the variables. Functions are compiled by XLA at their first run.
   * @param lender a compiled program: what both fill with bytes, under one name, in one shape and type, becomes one variable of both
   *   and is neither read nor kept twice. It must not change from then on. On a CPU; a GPU cannot share what sessions hold.
   * @throws ArgumentError when the bytes of a variable have the wrong length
   */
  async compile(lender: Program | null = null): Promise<void> {
    this.expect('open', 'compile');
    const made = this.zeroedThere();
    const lent = lender === null || nodeBackend().isUsingGpuDevice ? [] : this.commonWith(lender);
    const values: Parameters<Program['assignAll']>[0] = {};
    for (const [name, { init }] of this.specs)
      if (!made.has(name) && !lent.includes(name))
        values[name] = typeof init === 'function' ? init : (): Bytes => this.zeros(name);
    const loading = this.load();
    const borrowing = loading.then((own) => (lender ? own.borrow(lender.ready(), lent) : undefined));
    // files are read while TensorFlow takes the graph in
    const filling = this.fill(values, borrowing);
    for (const later of [borrowing, filling]) later.catch(() => undefined); // they are waited for below
    const session = await loading;
    const began = performance.now();
    try {
      await filling;
      await borrowing;
      await session.clear([...made]);
    } catch (error) {
      this.dispose();
      throw error;
    }
    this.options.onCompile?.(this.label, 'upload', performance.now() - began);
  }

  /** compile() of a program without `init` bytes, at once; no kept graph is used. @throws TracingError when a variable has them */
  compileSync(): void {
    this.expect('open', 'compile');
    for (const [name, { init }] of this.specs) {
      if (typeof init === 'function')
        throw new TracingError(`compileSync: '${name}' is filled by a function; use compile().`, { name });
    }
    const { graph } = atOnce(outerGraph(this.specs, this.functions.allTraced(), { ...this.graphOptions, whole: true }));
    const { label } = this;
    const session = this.fresh();
    timed(this.options.onCompile, label, 'load', () => session.loadSync(graph));
    this.session = session;
    this.state = 'ready';
    const made = this.zeroedThere();
    for (const name of this.specs.keys()) if (!made.has(name)) session.setSync(name, this.zeros(name));
    session.clearSync([...made]);
  }

  /** Variables whose zeros are made on the device: where there are many, such as those that stand for many rows. Few are sooner handed over. */
  private zeroedThere(): Set<string> {
    const zeros = [...this.specs].filter(([, { init }]) => typeof init !== 'function');
    const bytes = zeros.reduce((sum, [, { shape, dtype }]) => sum + sizeOf(shape) * dtypeBytes(dtype), 0);
    return new Set(bytes > MANY_ZEROS ? zeros.map(([name]) => name) : []);
  }

  /** Variables that this program and another fill with bytes, the same in both. */
  private commonWith(other: Program): string[] {
    const same = (a: VariableSpec, b: VariableSpec | undefined): boolean =>
      typeof a.init === 'function' && typeof b?.init === 'function' && describe(a) === describe(b);
    return [...this.specs].filter(([name, spec]) => same(spec, other.specs.get(name))).map(([name]) => name);
  }

  /**
   * Runs a function; its first run compiles it. The event loop is free meanwhile; calls of a program are done in the order they come. Tensors
   * returned are on the tensorflow backend and the caller's to dispose (no tidy knows of them).
   * @param inputs one value per declared input, copied before this returns
   * @throws ArgumentError for inputs that do not fit, DeviceError when TensorFlow fails; the program stays usable. DisposedError when the
   *   program is disposed of before the call's turn
   */
  async run(name: string, inputs: Record<string, InputValue> = {}): Promise<Record<string, tf.Tensor>> {
    return tensors(await this.execute(name, inputs));
  }

  /** As run(), at once: the event loop stands still. A tidy disposes of the tensors. */
  runSync(name: string, inputs: Record<string, InputValue> = {}): Record<string, tf.Tensor> {
    return tensors(this.executeSync(name, inputs));
  }

  /**
   * As run(), but outputs come as typed arrays and no tensor is left behind: the cheaper form for small outputs.
   * @param wanted the outputs to hand over, one at least where there are any; default all. The others stay on the device.
   */
  async call(
    name: string,
    inputs: Record<string, InputValue> = {},
    wanted?: readonly string[],
  ): Promise<Record<string, OutputData>> {
    return arrays(await this.execute(name, inputs, wanted));
  }

  /** As call(), at once: the event loop stands still. */
  callSync(
    name: string,
    inputs: Record<string, InputValue> = {},
    wanted?: readonly string[],
  ): Record<string, OutputData> {
    return arrays(this.executeSync(name, inputs, wanted));
  }

  /** Sets one variable from bytes of its declared dtype, or from a tensor, at once, after the calls before. @throws ArgumentError when it does not fit */
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
    this.ready().setSync(name, this.checked(name, bytes));
  }

  /** Sets many variables, and leaves the event loop free meanwhile; see fillInTurn(). */
  async assignAll(values: Record<string, () => Bytes | HeldBytes | Promise<Bytes | HeldBytes>>): Promise<void> {
    await this.fill(values);
  }

  /** @param before what the first variable waits for, and its bytes do not */
  private async fill(values: Parameters<Program['assignAll']>[0], before?: Promise<unknown>): Promise<void> {
    const all = Object.entries(values).map(([name, bytes]) => ({
      spec: this.spec(name),
      bytes,
      set: (given: Bytes | HeldBytes): Promise<void> => this.ready().set(name, this.checked(name, given)),
    }));
    await fillInTurn(all, before);
  }

  /** The value of a variable: Float32Array for float32 and bfloat16 (widened), Int32Array for int32, Uint8Array for uint8, BigInt64Array for int64. */
  read(name: string): Float32Array | Int32Array | Uint8Array | BigInt64Array {
    return typedValues(this.spec(name).dtype, this.readBytes(name));
  }

  /** The bytes of a variable in its declared dtype, a fresh copy. */
  readBytes(name: string): Uint8Array {
    this.spec(name);
    return this.ready().readSync(name);
  }

  /** The values of variables, as read() gives them; the event loop is free meanwhile. */
  async readAll(names: readonly string[]): Promise<(Float32Array | Int32Array | Uint8Array | BigInt64Array)[]> {
    const all = await this.readAllBytes(names);
    return names.map((name, i) => typedValues(this.spec(name).dtype, all[i]!));
  }

  /** The bytes of variables, as readBytes() gives them; the event loop is free meanwhile. */
  async readAllBytes(names: readonly string[]): Promise<Uint8Array[]> {
    for (const name of names) this.spec(name);
    const session = this.ready();
    return Promise.all(names.map((name) => session.read(name))); // asked for at once: the session need not wait for the next question
  }

  /** Sets variables (all of them without `names`) to zeros, on the device. */
  zero(names: readonly string[] = [...this.specs.keys()]): void {
    for (const name of names) this.spec(name);
    this.ready().clearSync(names);
  }

  /** As zero(); the event loop is free meanwhile. */
  async zeroAll(names: readonly string[]): Promise<void> {
    for (const name of names) this.spec(name);
    await this.ready().clear(names);
  }

  /** Frees the session and all variables, once a call that runs has ended; calls that wait fail. Idempotent; any later use throws DisposedError. */
  dispose(): void {
    this.session?.dispose();
    this.session = null;
    this.state = 'disposed';
  }

  private async load(): Promise<Session> {
    this.expect('open', 'compile');
    this.state = 'loading';
    const { graphCache } = this.options;
    let session: Session;
    try {
      const folder = graphCache ? graphFolder(graphCache, this.specs, this.functions.names) : null;
      session = (folder === null ? null : await this.kept(folder)) ?? (await this.traced(folder));
    } catch (error) {
      if (this.state === 'loading') this.state = 'open';
      throw error;
    }
    this.session = session;
    // dispose() may have come meanwhile
    if (this.state !== 'loading') {
      session.dispose();
      this.expect('ready', 'compile');
    }
    this.state = 'ready';
    return session;
  }

  /** The session of a kept graph, or null when there is none that TensorFlow takes. */
  private async kept(folder: string): Promise<Session | null> {
    const kept = keptGraph(folder, this.functions.names);
    if (!kept) return null;
    try {
      const session = await this.opened(kept);
      this.functions.know(kept.signatures);
      return session;
    } catch {
      return null; // damaged: it is written anew
    }
  }

  /** The session of the functions as traced now. @param keep where the graph is to be kept, if at all */
  private async traced(keep: string | null): Promise<Session> {
    const alive = (): void => this.expect('loading', 'compile');
    const traced = await this.functions.traceAll(alive);
    const graph = await inPieces(outerGraph(this.specs, traced, this.graphOptions), { alive });
    const session = await this.opened(graph);
    const signatures = traced.map(
      ({ name, inputs, outputs, assigned }) => [name, { inputs, outputs, assigned }] as const,
    );
    if (keep !== null) keepGraph(keep, { ...graph, signatures: Object.fromEntries(signatures) });
    return session;
  }

  /** One without a graph. */
  private fresh(): Session {
    return new Session(this.label, this.specs, this.options.memoryAdvice, this.rewrites);
  }

  /**
   * A warm start of 130m took half a second of a processor for it, a step of training on a GPU seven before XLA began; and what XLA compiles, or
   * oneDNN multiplies, gains nothing.
   */
  private get rewrites(): boolean {
    return this.runsOps;
  }

  private get graphOptions(): GraphOptions {
    const { rewrites } = this;
    return { rewrites, spares: !rewrites && !nodeBackend().isUsingGpuDevice };
  }

  private async opened({ graph, parts }: OuterGraph): Promise<Session> {
    const began = performance.now();
    const session = this.fresh();
    await session.load(graph);
    this.functions.leave(parts);
    this.options.onCompile?.(this.label, 'load', performance.now() - began);
    return session;
  }

  private get label(): string {
    return this.options.name ?? 'program';
  }

  private expect(state: 'open' | 'loading' | 'ready', what: string): void {
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

  private add(name: string, build: () => Pieces<Traced>): void {
    this.expect('open', 'define');
    this.functions.add(name, build);
  }

  private zeros(name: string): Bytes {
    const { shape, dtype } = this.spec(name);
    return new Uint8Array(sizeOf(shape) * dtypeBytes(dtype));
  }

  private checked<T extends Bytes | HeldBytes>(name: string, bytes: T): T {
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

  private async execute(
    name: string,
    inputs: Record<string, InputValue>,
    wanted?: readonly string[],
  ): Promise<Result[]> {
    const session = this.ready();
    const call = this.functions.ready(session, name, inputs, wanted, false);
    try {
      const ending = session.execute(call.what, call.prepared, call.values, call.assigns);
      if (call.taken) await Promise.all([call.taken, ending]); // the first that fails says why
      return call.ended(await ending);
    } catch (error) {
      call.failed();
      throw error;
    }
  }

  private executeSync(name: string, inputs: Record<string, InputValue>, wanted?: readonly string[]): Result[] {
    const session = this.ready();
    const call = this.functions.ready(session, name, inputs, wanted, true);
    try {
      return call.ended(session.executeSync(call.what, call.prepared, call.values, call.assigns));
    } catch (error) {
      call.failed();
      throw error;
    }
  }
}

function tensors(results: readonly Result[]): Record<string, tf.Tensor> {
  return Object.fromEntries(
    results.map(([output, { dtype, shape }, bytes]) => [output, wrapBytes(dtype, shape, bytes)]),
  );
}

function arrays(results: readonly Result[]): Record<string, OutputData> {
  return Object.fromEntries(results.map(([output, { dtype }, bytes]) => [output, outputValues(dtype, bytes)]));
}
