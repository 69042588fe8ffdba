/** WebGPU in tests that run in Node.js: on SwiftShader, as Chromium brings it, or what VK_ICD_FILENAMES names. */
import * as tf from '@tensorflow/tfjs';
import { dawnGpu } from '../../scripts/lib/dawn.js';
import type { GpuDevice } from '../../src/kernels/webgpu/gpu.js';

let device: Promise<GpuDevice | null> | null = null;

/** A device of the caller's own; null where there is no WebGPU. */
export async function newDevice(): Promise<(GpuDevice & { destroy(): void }) | null> {
  const adapter = await (await dawnGpu(true))?.requestAdapter();
  return (await adapter?.requestDevice()) ?? null;
}

/** describe() with a device of default limits; where there is none, one line says so and nothing of the suite runs. */
export function onWebGpu(title: string, suite: (device: () => GpuDevice) => void): void {
  describe(title, function () {
    this.timeout(60_000);
    let made: GpuDevice | null = null;
    before(async function () {
      device ??= newDevice();
      made = await device;
      if (made) return;
      process.stderr.write(`${title}: skipped, since there is no WebGPU (Chromium brings SwiftShader)\n`);
      this.skip();
    });
    suite(() => made!);
  });
}

/** Counts of a device's buffers that were made and not destroyed. */
export interface BufferCount {
  buffers: number;
  bytes: number;
}

function counted(device: GpuDevice): BufferCount {
  const count = { buffers: 0, bytes: 0 };
  const create = device.createBuffer.bind(device);
  device.createBuffer = (about) => {
    const buffer = create(about);
    const destroy = buffer.destroy.bind(buffer);
    const { size } = buffer;
    count.buffers++;
    count.bytes += size;
    let gone = false;
    buffer.destroy = () => {
      if (!gone) [count.buffers, count.bytes, gone] = [count.buffers - 1, count.bytes - size, true];
      destroy();
    };
    return buffer;
  };
  return count;
}

let onDawn: Promise<BufferCount | null> | null = null;

async function registerBackend(): Promise<BufferCount | null> {
  const gpu = await dawnGpu(true);
  if (!(await gpu?.requestAdapter())) return null;
  const { globals } = (await import('webgpu')) as unknown as { globals: object };
  const page = globalThis as { WorkerGlobalScope?: unknown; navigator?: unknown };
  const before = Object.getOwnPropertyDescriptor(page, 'navigator');
  Object.assign(page, globals, { WorkerGlobalScope: Object });
  Object.defineProperty(page, 'navigator', { value: { gpu, userAgent: '' }, configurable: true });
  try {
    // which asks whether it is in a page when it is loaded and when it is made
    await import('@tensorflow/tfjs-backend-webgpu');
    await tf.setBackend('webgpu');
  } finally {
    delete page.WorkerGlobalScope;
    if (before) Object.defineProperty(page, 'navigator', before);
    else delete page.navigator;
  }
  return counted((tf.backend() as unknown as { device: GpuDevice }).device);
}

/** Selects TensorFlow.js' WebGPU backend over Dawn. @returns the count of its buffers; null where there is no WebGPU */
export async function useWebGpu(): Promise<BufferCount | null> {
  onDawn ??= registerBackend();
  const count = await onDawn;
  if (count) await tf.setBackend('webgpu');
  return count;
}
