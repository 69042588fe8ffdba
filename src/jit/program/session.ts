/** A loaded graph: a session of TensorFlow with its variables, which it fills, reads and calls functions over. */
import { DeviceError, DisposedError } from '../../base/errors.js';
import { dtypeBytes, sizeOf } from '../../runtime/data_types.js';
import {
  type FedValue,
  type FeedPlace,
  type KeptTensor,
  NativeSession,
  type PreparedCall,
} from '../../runtime/native_session.js';
import type { Bytes, Dtype, HeldBytes, VariableSpec } from '../types.js';
import { diskFull } from './disk_error.js';
import {
  type Assigns,
  ASSIGNS_NOTHING,
  heldDuring,
  heldDuringSync,
  type HoldCalls,
  losesAssigned,
  lostError,
  mayHold,
} from './held_variables.js';
import { outOfMemory } from './memory_error.js';
import { NO_REWRITES } from './outer_graph.js';
import { byteShape, fillKind, placeOf, STORAGE, storageTypes, type Transfer } from './variable_io.js';

const int = (value: number): Int32Array => Int32Array.of(value);
const ints = (values: readonly number[]): Int32Array => Int32Array.from(values);

/** Bytes as whole words: the same memory where it is aligned and there is no rest, else a copy with zeros behind it. */
function wordsOf(bytes: Bytes): Int32Array {
  const { buffer, byteOffset, byteLength } = bytes;
  if (byteOffset % 4 === 0 && byteLength % 4 === 0) return new Int32Array(buffer, byteOffset, byteLength / 4);
  const words = new Int32Array(Math.ceil(byteLength / 4));
  new Uint8Array(words.buffer).set(new Uint8Array(buffer, byteOffset, byteLength));
  return words;
}

/** One TensorFlow session with its variables. */
export class Session {
  private native: NativeSession | null;
  private readonly prefix: string;
  private readonly positions: ReadonlyMap<string, number>;
  private readonly types: readonly Dtype[];
  /** By the name of what is fetched: a set of fetches has one set of feeds. */
  private readonly prepared = new Map<string, PreparedCall>();
  /** Variables whose values a failed call has lost, and the error for all calls after it. */
  private lost: { names: readonly string[]; error: DeviceError } | null = null;

  /**
   * @param memoryAdvice for messages @param rewrites whether TensorFlow rewrites the graph before each new set of fetches, which is for ops that it
   * runs itself @param part a session that several share, each with the variables of one device, whose nodes' names begin with a prefix
   */
  constructor(
    private readonly label: string,
    private readonly variables: ReadonlyMap<string, VariableSpec>,
    private readonly memoryAdvice = '',
    rewrites = true,
    part?: { native: NativeSession; prefix: string },
  ) {
    this.positions = new Map([...variables.keys()].map((name, k) => [name, k]));
    this.types = storageTypes(variables);
    this.prefix = part?.prefix ?? '';
    this.native = part?.native ?? new NativeSession(rewrites ? undefined : NO_REWRITES);
  }

  /** Takes the graph in, before anything else. @param graph a GraphDef (outerGraph) @throws DeviceError when TensorFlow does not accept it */
  loadSync(graph: Uint8Array): void {
    try {
      this.open().loadSync(graph);
    } catch (error) {
      throw this.refused(error);
    }
  }

  /** As loadSync(), on the session's thread. */
  async load(graph: Uint8Array): Promise<void> {
    try {
      await this.open().load(graph);
    } catch (error) {
      throw this.refused(error);
    }
  }

  /** Takes in more of the graph. @throws DeviceError when TensorFlow does not accept it */
  extendSync(what: string, graph: Uint8Array): void {
    const native = this.open();
    try {
      native.loadSync(graph);
    } catch (error) {
      throw this.failure(what, error);
    }
  }

  /** As extendSync(), on the session's thread: what is there can be prepared and called already, after it. */
  async extend(what: string, graph: Uint8Array): Promise<void> {
    const native = this.open();
    try {
      await native.load(graph);
    } catch (error) {
      throw this.native ? this.failure(what, error) : this.gone();
    }
  }

  /** Sets variables to zeros. */
  clearSync(names: readonly string[]): void {
    for (const name of names) this.moveSync(`zeroing the variable '${name}'`, ...this.filling(name, null));
  }

  /** As clearSync(), on the session's thread. */
  async clear(names: readonly string[]): Promise<void> {
    await Promise.all(names.map((name) => this.move(`zeroing the variable '${name}'`, ...this.filling(name, null))));
  }

  /** Sets a variable from bytes, which are copied before this returns; a block (base/blocks.ts) becomes the variable on a CPU. */
  setSync(name: string, bytes: Bytes): void {
    this.moveSync(`setting the variable '${name}'`, ...this.filling(name, bytes));
  }

  /** As setSync(), on the session's thread. */
  async set(name: string, bytes: Bytes | HeldBytes): Promise<void> {
    await this.move(`setting the variable '${name}'`, ...this.filling(name, bytes));
  }

  /** Makes variables those of another session: of the same names, shapes and types, in the same memory. For CPUs; a GPU makes a copy. */
  async borrow(from: Session, names: readonly string[]): Promise<void> {
    for (const name of names) {
      const { dtype } = this.variables.get(name)!;
      const lent = await from.keep(`lending the variable '${name}'`, STORAGE.lend(dtype), from.place(name));
      await this.move(`borrowing the variable '${name}'`, STORAGE.borrow(dtype), [...this.place(name), lent]);
    }
  }

  /** What fills a variable. @param bytes null for zeros @param shape of the zeros */
  private filling(
    name: string,
    bytes: Bytes | HeldBytes | null,
    shape = this.variables.get(name)!.shape,
  ): [Transfer, FedValue[]] {
    const spec = this.variables.get(name)!;
    const values = [
      ...this.place(name),
      int(fillKind(this.types.indexOf(spec.dtype), bytes === null)),
      ints(shape),
      ints(byteShape(spec)),
      bytes === null ? new Int32Array(1) : 'held' in bytes ? (bytes.held as KeptTensor) : wordsOf(bytes),
      ints([bytes?.byteLength ?? 0]),
    ];
    return [STORAGE.fill(), values];
  }

  /** Bytes of a variable in its declared dtype. */
  readSync(name: string): Uint8Array {
    return new Uint8Array(this.moveSync(...this.reading(name)), 0, this.bytesOf(name));
  }

  /** As readSync(), on the session's thread. */
  async read(name: string): Promise<Uint8Array> {
    return new Uint8Array(await this.move(...this.reading(name)), 0, this.bytesOf(name));
  }

  private bytesOf(name: string): number {
    const { shape, dtype } = this.variables.get(name)!;
    return sizeOf(shape) * dtypeBytes(dtype);
  }

  private reading(name: string): [string, Transfer, FedValue[]] {
    const size = this.bytesOf(name);
    const values = [...this.place(name), ints([size]), ints([(4 - (size % 4)) % 4])];
    return [`reading the variable '${name}'`, STORAGE.read(this.variables.get(name)!.dtype), values];
  }

  /** What executeSync() and execute() take: the nodes that are fed and fetched, looked up once. */
  prepare(feeds: readonly FeedPlace[], fetches: readonly string[], native = this.open()): PreparedCall {
    const key = fetches.join();
    let call = this.prepared.get(key);
    if (!call) {
      const named = this.prefix === '' ? feeds : feeds.map(([name, ...rest]) => [this.prefix + name, ...rest] as const);
      call = native.prepare(
        named,
        fetches.map((name) => this.prefix + name),
      );
      this.prepared.set(key, call);
    }
    return call;
  }

  /** Runs and returns the bytes of what was fetched. @param what for messages @param assigns what the call assigns */
  executeSync(
    what: string,
    call: PreparedCall,
    values: readonly FedValue[],
    assigns: Assigns = ASSIGNS_NOTHING,
  ): ArrayBuffer[] {
    const native = this.open();
    const work = (): ArrayBuffer[] => native.runSync(call, values);
    const failed = (error: unknown, held: boolean): Error => this.failedCall(what, error, held ? [] : assigns.names);
    const holds = this.holdsOf(assigns);
    if (holds) return heldDuringSync(native, holds, work, failed);
    try {
      return work();
    } catch (error) {
      throw failed(error, false);
    }
  }

  /** As executeSync(), on the session's thread. @throws DisposedError where the session is disposed of before its turn */
  async execute(
    what: string,
    call: PreparedCall,
    values: readonly FedValue[],
    assigns: Assigns = ASSIGNS_NOTHING,
  ): Promise<ArrayBuffer[]> {
    const native = this.open();
    const work = (): Promise<ArrayBuffer[]> => native.run(call, values);
    const failed = (error: unknown, held: boolean): Error => this.failedCall(what, error, held ? [] : assigns.names);
    const holds = this.holdsOf(assigns);
    if (holds) return heldDuring(native, holds, work, failed);
    try {
      return await work();
    } catch (error) {
      throw failed(error, false);
    }
  }

  /** Ends when the call that runs has ended. */
  dispose(): void {
    if (this.lost && this.native) this.freeRest(this.native, this.lost.names);
    else this.native?.close();
    this.native = null;
  }

  /** What holds the variables that a function assigns, during its first call; null where nothing is to be held. */
  private holdsOf({ names, first }: Assigns): HoldCalls | null {
    if (!first || names.length === 0 || !mayHold(names.map((name) => this.variables.get(name)!))) return null;
    const letGo = STORAGE.letGo();
    return {
      holds: names.map((name) => {
        const { feeds, fetch } = STORAGE.hold(this.variables.get(name)!.dtype);
        return [this.prepare(feeds, [fetch]), this.place(name)] as const;
      }),
      letGo: this.prepare(letGo.feeds, [letGo.fetch]),
    };
  }

  /** @param unheld variables that the call assigns and nobody held */
  private failedCall(what: string, error: unknown, unheld: readonly string[]): Error {
    if (!this.native) return this.gone();
    const failure = this.failure(what, error);
    if (unheld.length === 0 || !losesAssigned(error)) return failure;
    // to free them would free memory twice
    this.native.abandon();
    this.lost = { names: unheld, error: lostError(this.label, unheld, failure) };
    return this.lost.error;
  }

  /** Empties the variables that are whole; TensorFlow keeps the others, without their memory, and the session. */
  private freeRest(native: NativeSession, lost: readonly string[]): void {
    const gone = new Set(lost);
    for (const name of this.variables.keys()) {
      if (gone.has(name)) continue;
      const [{ feeds, fetch }, values] = this.filling(name, null, [0]);
      native.run(this.prepare(feeds, [fetch], native), values).catch(() => {}); // it stays then
    }
  }

  private open(): NativeSession {
    if (!this.native) throw this.gone();
    if (this.lost) throw this.lost.error;
    return this.native;
  }

  private gone(): DisposedError {
    return new DisposedError(`${this.label} was disposed.`);
  }

  private failure(what: string, error: unknown): DeviceError {
    const { message: text, code } = error as Error & { code?: number };
    const where = `${this.label}: ${what}`;
    return (
      diskFull(text, where) ??
      outOfMemory(text, where, this.variables.values(), this.memoryAdvice) ??
      new DeviceError(`${where} failed: ${text}`, { what, code }, { cause: error })
    );
  }

  private refused(error: unknown): Error {
    if (!this.native) return this.gone();
    this.dispose();
    const { message } = error as Error;
    return new DeviceError(`${this.label}: TensorFlow did not accept the graph: ${message}`, {}, { cause: error });
  }

  private async keep(what: string, transfer: Transfer, values: readonly FedValue[]): Promise<KeptTensor> {
    const native = this.open();
    try {
      return (await native.keep(this.prepare(transfer.feeds, [transfer.fetch]), values))[0]!;
    } catch (error) {
      throw this.native ? this.failure(what, error) : this.gone();
    }
  }

  private moveSync(what: string, { feeds, fetch }: Transfer, values: readonly FedValue[]): ArrayBuffer {
    return this.executeSync(what, this.prepare(feeds, [fetch]), values)[0]!;
  }

  private async move(what: string, { feeds, fetch }: Transfer, values: readonly FedValue[]): Promise<ArrayBuffer> {
    return (await this.execute(what, this.prepare(feeds, [fetch]), values))[0]!;
  }

  /** What says which variable is meant. */
  private place(name: string): Int32Array[] {
    return placeOf(this.positions.get(name)!, this.variables.size).map(int);
  }
}
