/** What computes in a page: TensorFlow.js on WebAssembly or WebGPU. What speaks of TensorFlow's own runtime needs Node.js. */
import * as tf from '@tensorflow/tfjs';
import { type DeviceLike, parseDevice } from '../../../base/devices.js';
import { DeviceError } from '../../../base/errors.js';
import type { SelectOptions } from '../../../runtime/backend.js';
import { SELECT_TABLE } from '../../../runtime/option_rules.js';
import type { DeviceReport } from '../../../runtime/report.js';
import type { WasmBackend } from '../../../kernels/wasm/module.js';
import { startThreads } from '../../../kernels/wasm/threads.js';
import { guardReads, replaceLost, webGpuBackend } from '../../../kernels/webgpu/tfjs.js';
import { packageVersion } from '../../../runtime/version.js';
import { needsNode, needsNodeLater } from '../../needs_node.js';
import { withoutPool } from '../../pool.js';
import { addressOf, browserSettings } from '../../settings.js';

export type { SelectOptions, DeviceReport };
export { packageVersion };

/** What is exported in Node.js and not named here. */
const otherwise = needsNode("What speaks of TensorFlow's own runtime");
export const multiprocessors = otherwise;

/** No TensorFlow, so no GPU of its. */
export const onGpu = (): boolean => false;
export const chosenGpu = (): number => 0;
export const gpuRooms = (): number[] => [];
export const largestGpuMemory = (): number => Infinity;
export const preferWideVectors = (): void => undefined;
export const graphCacheDir = (): null => null;
export const cacheRoot = (): string => 'opfs:/';
export const codeDigest = packageVersion;
export const compactMemory = (): void => undefined;
export const computeCapability = (): number => 0;
export const TENSORFLOW_VERSION = '';
export const hostKernels = (): readonly string[] => [];

export const loadTensorFlow = needsNode('loadTensorFlow()');
export const configureRuntime = needsNode('configureRuntime()');
export const setupRuntime = needsNodeLater('setupRuntime()');

/** Threads that nobody asked for: more of them wait for memory, and for one another. */
const MOST_THREADS = 4;

async function useWasm(): Promise<void> {
  const wasm = await import('@tensorflow/tfjs-backend-wasm');
  const { wasm_folder } = browserSettings();
  if (wasm_folder !== undefined) wasm.setWasmPaths(addressOf(wasm_folder));
  else
    wasm.setWasmPaths({
      // in this form bundlers know the files and take them along
      'tfjs-backend-wasm.wasm': new URL('./tfjs-backend-wasm.wasm', import.meta.url).href,
      'tfjs-backend-wasm-simd.wasm': new URL('./tfjs-backend-wasm-simd.wasm', import.meta.url).href,
      'tfjs-backend-wasm-threaded-simd.wasm': new URL('./tfjs-backend-wasm-threaded-simd.wasm', import.meta.url).href,
    });
  const threads = threadsWanted();
  // its build with threads for the memory, which it shares: threads are those of our kernels
  if (threads === 1) tf.env().set('WASM_HAS_MULTITHREAD_SUPPORT', false);
  wasm.setThreadsCount(1);
  // asked for before, so that nothing but its start is waited for within withoutPool()
  for (const flag of ['WASM_HAS_SIMD_SUPPORT', 'WASM_HAS_MULTITHREAD_SUPPORT']) await tf.env().getAsync(flag);
  const chosen = (): Promise<void> =>
    use('wasm', 'Its *.wasm files lie beside this code, or where configureBrowser({ wasm_folder }) says.');
  if (threads === 1) return chosen();
  await withoutPool(chosen);
  await startThreads(tf.backend() as unknown as WasmBackend, threads);
}

/** Memory can be shared with threads where a page is cross-origin isolated. */
function threadsWanted(): number {
  if (!globalThis.crossOriginIsolated) return 1;
  return browserSettings().threads ?? Math.min(MOST_THREADS, globalThis.navigator.hardwareConcurrency);
}

/** @throws DeviceError where the page has no WebGPU, or no adapter for it */
async function useWebGpu(): Promise<void> {
  const { gpu } = globalThis.navigator as unknown as { gpu?: { requestAdapter(): Promise<unknown> } };
  const lacks = gpu ? ((await gpu.requestAdapter()) ? null : 'there is no adapter') : 'this page has no navigator.gpu';
  if (lacks !== null)
    throw new DeviceError(`WebGPU cannot be used: ${lacks}. Take the device 'wasm'.`, { device: 'webgpu' });
  await import('@tensorflow/tfjs-backend-webgpu');
  replaceLost();
  await use('webgpu', '');
  const backend = webGpuBackend();
  if (backend) guardReads(backend);
}

async function use(backend: string, advice: string): Promise<void> {
  if (await tf.setBackend(backend)) return;
  throw new DeviceError(`The tfjs backend '${backend}' could not be initialised. ${advice}`.trim(), { backend });
}

/**
 * Selects what computes: 'wasm' (also 'auto' and 'cpu'), 'webgpu' (also 'gpu'), or 'js'.
 * @throws DeviceError for what a page does not have
 */
export async function selectBackend(asked: DeviceLike = 'auto', options: SelectOptions = {}): Promise<DeviceReport> {
  SELECT_TABLE.check(options);
  const { device } = parseDevice(asked);
  if (device === 'tensorflow') needsNode("device 'tensorflow'")();
  if (device === 'js') await use('cpu', '');
  else if (device === 'gpu' || device === 'webgpu') await useWebGpu();
  else await useWasm();
  await tf.ready();
  return deviceReport();
}

/** What is in use in this page. */
export function deviceReport(): DeviceReport {
  const backend = tf.getBackend();
  const used = backend === 'webgpu' || backend === 'webgl';
  return {
    package: packageVersion(),
    node: '',
    platform: globalThis.navigator?.userAgent ?? 'browser',
    tfjs: tf.version_core,
    tensorflow: null,
    library: null,
    runtime: null,
    backend,
    device: used ? 'gpu' : 'cpu',
    cpu: { model: '', cores: globalThis.navigator?.hardwareConcurrency ?? 1, features: [], kernels: [] },
    gpu: { names: [], used, reason: used ? null : `the ${backend} backend is in use; choose the device webgpu.` },
  };
}
