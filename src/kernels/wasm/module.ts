/** Our WebAssembly kernels over the memory of TensorFlow.js' backend: instantiated once for each backend. */
import type * as tf from '@tensorflow/tfjs';
import { BINARY } from './binary.js';
import { type Operation, WORDS } from './program.js';

/** An address in the backend's memory. */
export type Address = number;

/** What the *.as files export; addresses first, as there. */
interface WasmExports {
  int4Rows(codes: Address, levels: Address, to: Address, inner: number, group: number, rows: number): void;
  int8Rows(codes: Address, scale: Address, to: Address, inner: number, rows: number): void;
  bf16Values(w: Address, to: Address, count: number): void;
  run(
    ...args: [
      ...[control: Address, program: Address, count: number],
      ...[threads: number, parts: number, scratch: Address, size: number],
    ]
  ): void;
}

/** What we use of TensorFlow.js' BackendWasm, 4.22. Its build with threads has the memory beside the exports. */
export interface WasmBackend {
  readonly wasm: { readonly asm?: { readonly memory?: unknown }; readonly wasmMemory?: unknown };
  readonly dataIdMap: { get(id: tf.DataId): { readonly memoryOffset: number } };
  makeOutput(shape: number[], dtype: tf.DataType): tf.TensorInfo;
  disposeData(id: tf.DataId): boolean;
}

/** The part of WebAssembly's interface that is needed, of which neither Node.js' types nor all of the DOM's are here. */
interface Api {
  readonly Memory: new (...args: never[]) => WasmMemory;
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (module: object, imports: object) => { readonly exports: object };
  validate(bytes: Uint8Array): boolean;
}

interface WasmMemory {
  readonly buffer: ArrayBufferLike;
}

const made = new WeakMap<WasmBackend, WasmKernels | null>();

/** The kernels over a backend's memory. Null where they cannot be: without SIMD, and where a page's rules forbid to compile. */
export function kernelsOver(backend: WasmBackend): WasmKernels | null {
  let found = made.get(backend);
  if (found === undefined) {
    found = WasmKernels.over(backend);
    made.set(backend, found);
  }
  return found;
}

/** Of the import of the memory: what is in the binary, for one that is shared, and for one that is not. */
const SHARED = [2, 18, 1, 3, 101, 110, 118, 6, 109, 101, 109, 111, 114, 121, 2, 3, 0, 128, 128, 4];
const UNSHARED = [2, 15, 1, 3, 101, 110, 118, 6, 109, 101, 109, 111, 114, 121, 2, 0, 0];

/** The kernels' bytes for a memory. */
function kernelBytes(shared: boolean): Uint8Array {
  const bytes = Uint8Array.from(atob(BINARY), (letter) => letter.charCodeAt(0));
  if (shared) return bytes;
  const at = bytes.findIndex((_, i) => SHARED.every((byte, k) => bytes[i + k] === byte));
  return Uint8Array.of(...bytes.subarray(0, at), ...UNSHARED, ...bytes.subarray(at + SHARED.length));
}

/** Words of control, in threads.as. */
const CONTROL = 10;

/** Parts of an operation for each thread: more share the work better where a thread is held up, and each has to read its input. */
const PARTS = 3;

/** The kernels of a backend. */
export class WasmKernels {
  /** Where runs are controlled from. */
  readonly control: Address;
  /** Place for an operation that is run alone, and for its number of rows. */
  private readonly alone: Address;
  readonly rows: Address;
  /** Threads that a run has: those that serve, and this one. */
  threads = 1;

  private constructor(
    private readonly backend: WasmBackend,
    readonly memory: WasmMemory,
    readonly module: object,
    readonly exports: WasmExports,
  ) {
    const { dataId } = backend.makeOutput([CONTROL + WORDS + 1], 'int32');
    this.control = addressOf(backend, dataId);
    this.alone = this.control + 4 * CONTROL;
    this.rows = this.alone + 4 * WORDS;
    this.words(this.control, CONTROL).fill(0);
  }

  static over(backend: WasmBackend): WasmKernels | null {
    const api = (globalThis as unknown as { WebAssembly?: Api }).WebAssembly;
    const memory = backend.wasm.asm?.memory ?? backend.wasm.wasmMemory;
    if (!api || !(memory instanceof api.Memory)) return null;
    const bytes = kernelBytes(!(memory.buffer instanceof ArrayBuffer));
    if (!api.validate(bytes)) return null;
    try {
      const module = new api.Module(bytes);
      const { exports } = new api.Instance(module, { env: { memory } });
      return new WasmKernels(backend, memory, module, exports as WasmExports);
    } catch {
      return null;
    }
  }

  /** Memory as words. Not to be kept: it is another after it has grown. */
  words(address: Address, count: number): Int32Array {
    return new Int32Array(this.memory.buffer, address, count);
  }

  /** Memory as float32, likewise. */
  values(address: Address, count: number): Float32Array {
    return new Float32Array(this.memory.buffer, address, count);
  }

  /** Runs operations that lie in memory. @param scratch for each of the threads, `size` values */
  run(program: Address, count: number, scratch: Address, size: number): void {
    this.exports.run(this.control, program, count, this.threads, PARTS * this.threads, scratch, 4 * size);
  }

  /** Runs one operation, whose number of rows is at `rows`. */
  once({ words, scratch }: Operation, rows: number): void {
    this.words(this.rows, 1)[0] = rows;
    this.words(this.alone, WORDS).set(words);
    if (scratch === 0) this.run(this.alone, 1, 0, 0);
    else withScratch(this.backend, scratch * this.threads, (address) => this.run(this.alone, 1, address, scratch));
  }
}

/** Memory for the time of a call. */
function withScratch(backend: WasmBackend, values: number, use: (address: Address) => void): void {
  const { dataId } = backend.makeOutput([values], 'float32');
  try {
    use(addressOf(backend, dataId));
  } finally {
    backend.disposeData(dataId);
  }
}

export function addressOf(backend: WasmBackend, id: tf.DataId): Address {
  return backend.dataIdMap.get(id).memoryOffset;
}
