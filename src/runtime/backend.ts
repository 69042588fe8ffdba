/** Choosing the tfjs backend that a device name asks for. */
import * as fs from 'node:fs';
import * as path from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { DeviceError } from '../base/errors.js';
import { codeFile, requireNear } from '../base/package_files.js';
import { findNodeBackend, nodeBackend } from './binding.js';
import { type DeviceLike, parseDevice } from '../base/devices.js';
import { chooseGpu, isLoaded } from './environment.js';
import { gpuNames } from './gpu.js';
import { loadTensorFlow } from './load.js';
import { SELECT_TABLE } from './option_rules.js';
import { runtimeDir } from './paths.js';
import { deviceReport, gpuReason, type DeviceReport } from './report.js';

/** Whether tfjs runs on a GPU through TensorFlow: on the tensorflow backend, or while tracing for it. */
export function onGpu(): boolean {
  return findNodeBackend()?.isUsingGpuDevice === true && !['wasm', 'cpu'].includes(tf.getBackend());
}

export interface SelectOptions {
  /** Told, in one line, when something slower than hoped for is used. Default: the line goes to stderr. */
  onNotice?: (line: string) => void;
}

const toStderr = (line: string) => void process.stderr.write(`${line}\n`);

/**
 * Loads and selects the backend for a device.
 *
 * @param asked a name, or a GPU as PyTorch names it: 0, 'cuda', 'cuda:1'
 * @returns what is in use now
 * @throws ArgumentError for an unknown device name
 * @throws DeviceError when the device cannot be had, naming what is missing
 * @example
 * const report = await selectBackend('auto');
 * report.backend; // 'tensorflow'
 */
export async function selectBackend(asked: DeviceLike = 'auto', options: SelectOptions = {}): Promise<DeviceReport> {
  SELECT_TABLE.check(options);
  const { device, card } = parseDevice(asked);
  if (card !== null) chooseGpu(card);
  const notice = options.onNotice ?? toStderr;
  if (device === 'wasm') await useWasm();
  else if (device === 'js') await use('cpu');
  else if (device === 'gpu') useGpu();
  else if (device === 'webgpu')
    throw new DeviceError("device 'webgpu' is one of the browser's build. In Node.js take 'gpu', 'cpu' or 'wasm'.", {
      device,
    });
  else if (device === 'tensorflow') loadTensorFlow();
  else await useBest(device, notice);
  await tf.ready();
  return deviceReport();
}

let noticed = false;

async function useBest(device: 'auto' | 'cpu', notice: (line: string) => void): Promise<void> {
  if (!isLoaded() && !runtimeDir(device)) {
    await useWasm();
    if (!noticed) {
      noticed = true;
      notice(
        'tfjs-mamba2: the TensorFlow runtime is not set up, so WebAssembly is used, which is slower. Run `npx mamba2 setup` once.',
      );
    }
    return;
  }
  loadTensorFlow(device);
  if (device === 'cpu' && nodeBackend().isUsingGpuDevice) {
    throw new DeviceError(
      "device 'cpu': TensorFlow is loaded in this process with a GPU already. Ask for the cpu first, or set CUDA_VISIBLE_DEVICES=-1.",
      { device },
    );
  }
}

function useGpu(): void {
  const dir = runtimeDir('gpu');
  if (!dir && !isLoaded()) {
    throw new DeviceError(
      `device 'gpu': the TensorFlow runtime is not set up${gpuNames().length ? '' : ' (and the NVIDIA driver reports no GPU)'}. ` +
        'Run `npx mamba2 setup --gpu`.',
      { device: 'gpu' },
    );
  }
  loadTensorFlow('gpu');
  if (nodeBackend().isUsingGpuDevice) return;
  throw new DeviceError(`device 'gpu' cannot be used: ${gpuReason(dir)}`, { device: 'gpu', runtime: dir });
}

/** Where the binaries of tfjs' WebAssembly backend are: in its package, or beside a bundle. @throws DeviceError */
function wasmFolder(): string {
  const beside = path.dirname(codeFile);
  if (fs.existsSync(path.join(beside, 'tfjs-backend-wasm.wasm'))) return beside;
  try {
    return path.dirname(requireNear.resolve('@tensorflow/tfjs-backend-wasm'));
  } catch (error) {
    throw new DeviceError(
      `The files of the WebAssembly backend were not found. Copy node_modules/@tensorflow/tfjs-backend-wasm/dist/*.wasm beside the bundle (to ${beside}), or leave packages out of it (esbuild --packages=external).`,
      { folder: beside },
      { cause: error },
    );
  }
}

async function useWasm(): Promise<void> {
  const wasm = await import('@tensorflow/tfjs-backend-wasm');
  wasm.setWasmPaths(`${wasmFolder()}${path.sep}`);
  await use('wasm');
}

async function use(backend: string): Promise<void> {
  if (!(await tf.setBackend(backend))) {
    throw new DeviceError(`The tfjs backend '${backend}' could not be initialised.`, { backend });
  }
}
