/** Workers that share the memory of TensorFlow.js' backend, and take their part of each run of our kernels. */
import { kernelsOver, type WasmBackend } from './module.js';

/** What we use of workers and their addresses, of which Node.js' types know nothing. */
interface Web {
  readonly Worker?: new (url: string) => {
    onmessage: (() => void) | null;
    onerror: ((event: { preventDefault(): void }) => void) | null;
    postMessage(message: unknown): void;
    terminate(): void;
  };
  readonly Blob: new (parts: string[], about: object) => Blob;
  readonly URL: { createObjectURL(blob: Blob): string; revokeObjectURL(url: string): void };
}

/** A worker says that it is there, and never returns to its events: it waits in serve(). */
const SCRIPT = `onmessage = ({ data: { module, memory, control, thread } }) => {
  const { serve } = new WebAssembly.Instance(module, { env: { memory } }).exports;
  postMessage(null);
  serve(control, thread);
};`;

/** How long workers may take to start, in milliseconds: a page's rules may forbid them without a word. */
const PATIENCE = 10_000;

/**
 * Has runs of the kernels done by so many threads, this one among them.
 * @returns how many they are: 1 where the memory is not shared, or workers do not start
 */
export async function startThreads(backend: WasmBackend, count: number): Promise<number> {
  const kernels = kernelsOver(backend);
  const web = globalThis as unknown as Web;
  if (!kernels || !web.Worker || kernels.memory.buffer instanceof ArrayBuffer) return 1;
  if (kernels.threads > 1 || count < 2) return kernels.threads;
  const { Worker } = web;
  const url = web.URL.createObjectURL(new web.Blob([SCRIPT], { type: 'text/javascript' }));
  const workers: InstanceType<typeof Worker>[] = [];
  const started = (thread: number): Promise<void> =>
    new Promise((resolve, reject) => {
      const worker = new Worker(url);
      workers.push(worker);
      worker.onmessage = () => resolve();
      worker.onerror = (event) => {
        event.preventDefault();
        reject(new Error('A worker of the WebAssembly kernels did not start'));
      };
      const { module, memory, control } = kernels;
      worker.postMessage({ module, memory, control, thread });
    });
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error('Workers of the WebAssembly kernels did not start')), PATIENCE);
  });
  try {
    await Promise.race([Promise.all(Array.from({ length: count - 1 }, (_, i) => started(i + 1))), late]);
    kernels.threads = count;
  } catch {
    // one thread computes the same
    for (const worker of workers) worker.terminate();
  } finally {
    clearTimeout(timer);
    web.URL.revokeObjectURL(url);
  }
  return kernels.threads;
}
