/** Our WebAssembly kernels over the memory of TensorFlow.js' backend: instantiated once for each backend. */
import type * as tf from '@tensorflow/tfjs';
import { BINARY } from './binary.js';

/** An address in the backend's memory. */
type Address = number;

/** What kernels.as exports; addresses first, as there. */
export interface WasmExports {
  dense(x: Address, w: Address, y: Address, rows: number, inner: number, out: number, stride: number): void;
  bf16Product(x: Address, w: Address, y: Address, inner: number, out: number): void;
  int8Product(x: Address, codes: Address, scale: Address, y: Address, inner: number, out: number): void;
  wholeInput(x: Address, blocked: Address, levels: Address, inner: number, group: number): void;
  int4Product(
    ...args: [
      ...[blocked: Address, steps: Address, codes: Address, levels: Address, y: Address],
      ...[inner: number, group: number, out: number],
    ]
  ): void;
  int4Rows(codes: Address, levels: Address, to: Address, inner: number, group: number, rows: number): void;
  int8Rows(codes: Address, scale: Address, to: Address, inner: number, rows: number): void;
  bf16Values(w: Address, to: Address, count: number): void;
}

/** What we use of TensorFlow.js' BackendWasm, 4.22. */
export interface WasmBackend {
  readonly wasm: { readonly asm?: { readonly memory?: unknown } };
  readonly dataIdMap: { get(id: tf.DataId): { readonly memoryOffset: number } };
  makeOutput(shape: number[], dtype: tf.DataType): tf.TensorInfo;
  disposeData(id: tf.DataId): boolean;
}

/** The part of WebAssembly's interface that is needed, of which neither Node.js' types nor all of the DOM's are here. */
interface Api {
  readonly Memory: new (...args: never[]) => object;
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (module: object, imports: object) => { readonly exports: object };
  validate(bytes: Uint8Array): boolean;
}

const made = new WeakMap<WasmBackend, WasmExports | null>();

/**
 * The kernels over a backend's memory. Null where they cannot be: without SIMD, where a page's rules forbid to compile, and where the
 * backend has threads, whose memory it does not give away.
 */
export function kernelsOver(backend: WasmBackend): WasmExports | null {
  let found = made.get(backend);
  if (found === undefined) {
    found = instantiate(backend);
    made.set(backend, found);
  }
  return found;
}

function instantiate({ wasm }: WasmBackend): WasmExports | null {
  const api = (globalThis as unknown as { WebAssembly?: Api }).WebAssembly;
  const memory = wasm.asm?.memory;
  if (!api || !(memory instanceof api.Memory)) return null;
  const bytes = Uint8Array.from(atob(BINARY), (letter) => letter.charCodeAt(0));
  if (!api.validate(bytes)) return null;
  try {
    return new api.Instance(new api.Module(bytes), { env: { memory } }).exports as WasmExports;
  } catch {
    return null;
  }
}

/** Memory for the time of a call. */
export function withScratch<T>(backend: WasmBackend, values: number, use: (address: number) => T): T {
  const { dataId } = backend.makeOutput([values], 'float32');
  try {
    return use(addressOf(backend, dataId));
  } finally {
    backend.disposeData(dataId);
  }
}

export function addressOf(backend: WasmBackend, id: tf.DataId): number {
  return backend.dataIdMap.get(id).memoryOffset;
}
