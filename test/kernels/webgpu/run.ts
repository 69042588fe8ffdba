/** One kernel run on buffers made for it. */
import {
  bytesOf,
  dispatchOf,
  encode,
  GpuBuffers,
  type GpuBuffer,
  type GpuDevice,
  type WgslKernel,
} from '../../../src/kernels/webgpu/gpu.js';
import { controlWords } from '../../../src/kernels/webgpu/control.js';

type Values = Float32Array | Uint32Array | Uint8Array;

/** The steps of a block, as a host sets them. */
export function control(changes: Partial<Parameters<typeof controlWords>[0]> = {}, temperature = 1): Uint32Array {
  const usual = { token: 0, moves: 1, finished: 0, pad: 0, top_k: 0 };
  return controlWords({ ...usual, ...changes }, temperature);
}

/** Runs kernels one after another on the same buffers. @returns what is in those that are asked for, as float32 */
export async function runKernels<Name extends string>(
  device: GpuDevice,
  kernels: readonly WgslKernel[],
  given: Readonly<Record<string, Values>>,
  wanted: readonly Name[],
): Promise<Record<Name, Float32Array>> {
  const buffers = new GpuBuffers(device);
  try {
    const made = Object.fromEntries(Object.entries(given).map(([name, values]) => [name, buffers.filled(values)]));
    const bindings = Object.fromEntries(Object.entries(made).map(([name, buffer]) => [name, { buffer }]));
    const encoder = device.createCommandEncoder();
    encode(
      encoder,
      kernels.map((kernel) => dispatchOf(device, kernel, bindings)),
    );
    const staged = wanted.map((name): [Name, GpuBuffer] => {
      const staging = buffers.staging(made[name]!.size);
      encoder.copyBufferToBuffer(made[name]!, 0, staging, 0, made[name]!.size);
      return [name, staging];
    });
    device.queue.submit([encoder.finish()]);
    const read: [Name, Float32Array][] = [];
    for (const [name, staging] of staged) {
      const bytes = await bytesOf(staging);
      read.push([name, new Float32Array(bytes, 0, Math.floor(given[name]!.byteLength / 4))]);
    }
    return Object.fromEntries(read) as Record<Name, Float32Array>;
  } finally {
    buffers.dispose();
  }
}
