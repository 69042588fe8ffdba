/**
 * What we use of WebGPU: the types of it that TypeScript has are not in every version that reads our declarations, and both
 * a page's device and that of Dawn in Node.js fit these. And the few lines that every kernel needs: buffers, pipelines, bind groups.
 */
import { DeviceError } from '../../base/errors.js';

export interface GpuBuffer {
  readonly size: number;
  mapAsync(mode: number): Promise<unknown>;
  getMappedRange(): ArrayBuffer;
  unmap(): void;
  destroy(): void;
}

/** A part of a buffer, as shaders see it. */
export interface GpuBinding {
  readonly buffer: GpuBuffer;
  /** Bytes; a multiple of OFFSET_UNIT. Default 0 */
  readonly offset?: number;
  /** Bytes. Default: up to the buffer's end */
  readonly size?: number;
}

export type GpuPipeline = { getBindGroupLayout(index: number): object };

export interface GpuPass {
  setPipeline(pipeline: GpuPipeline): void;
  setBindGroup(index: number, group: object): void;
  dispatchWorkgroups(x: number, y: number): void;
  end(): void;
}

export interface GpuEncoder {
  beginComputePass(): GpuPass;
  copyBufferToBuffer(from: GpuBuffer, at: number, to: GpuBuffer, offset: number, size: number): void;
  finish(): object;
}

export interface GpuDevice {
  readonly limits: { readonly maxStorageBufferBindingSize: number; readonly maxBufferSize: number };
  readonly queue: {
    submit(commands: readonly object[]): void;
    writeBuffer(buffer: GpuBuffer, at: number, data: ArrayBufferView): void;
  };
  /** Is kept when the device is gone: the driver was reset, the tab was in the background for long, or somebody destroyed it. */
  readonly lost: Promise<{ readonly reason?: string; readonly message: string }>;
  createBuffer(about: { size: number; usage: number; mappedAtCreation?: boolean }): GpuBuffer;
  createShaderModule(about: { code: string }): object;
  createComputePipeline(about: { layout: 'auto'; compute: { module: object } }): GpuPipeline;
  createBindGroup(about: { layout: object; entries: { binding: number; resource: GpuBinding }[] }): object;
  createCommandEncoder(): GpuEncoder;
  pushErrorScope(filter: 'validation' | 'out-of-memory'): void;
  popErrorScope(): Promise<{ readonly message: string } | null>;
}

/** Bits of GPUBufferUsage, and GPUMapMode.READ. */
const [MAP_READ, COPY_SRC, COPY_DST, STORAGE, READ] = [1, 4, 8, 128, 1];
/** minStorageBufferOffsetAlignment of every device. */
export const OFFSET_UNIT = 256;
/** maxComputeWorkgroupsPerDimension by default. */
export const MOST_WORKGROUPS = 65535;

/** A kernel as it is dispatched: its text, what it binds in order, and in how many workgroups. Sizes are constants of the text. */
export interface WgslKernel {
  readonly code: string;
  readonly bindings: readonly string[];
  readonly workgroups: number;
  /** The second dimension of workgroups. Default 1 */
  readonly times?: number;
}

/** A kernel with its buffers, ready to be dispatched any number of times. */
export interface Dispatch {
  readonly pipeline: GpuPipeline;
  readonly group: object;
  readonly workgroups: number;
  readonly times: number;
}

const pipelines = new WeakMap<GpuDevice, Map<string, GpuPipeline>>();

function pipelineOf(device: GpuDevice, code: string): GpuPipeline {
  let all = pipelines.get(device);
  if (!all) pipelines.set(device, (all = new Map<string, GpuPipeline>()));
  let made = all.get(code);
  if (!made) {
    const module = device.createShaderModule({ code });
    all.set(code, (made = device.createComputePipeline({ layout: 'auto', compute: { module } })));
  }
  return made;
}

/** @param given by the names in the kernel's list @throws DeviceError for a buffer that is missing, or a binding beyond the device's limit */
export function dispatchOf(
  device: GpuDevice,
  kernel: WgslKernel,
  given: Readonly<Record<string, GpuBinding | undefined>>,
): Dispatch {
  const pipeline = pipelineOf(device, kernel.code);
  const entries = kernel.bindings.map((name, binding) => {
    const resource = given[name];
    if (!resource) throw new DeviceError(`internal: a WebGPU kernel was given no ${name}`, { name });
    const size = resource.size ?? resource.buffer.size - (resource.offset ?? 0);
    const most = device.limits.maxStorageBufferBindingSize;
    if (size > most)
      throw new DeviceError(`${name} has ${size} bytes, and this WebGPU device binds ${most} at a time.`, {
        name,
        got: size,
        expected: most,
      });
    return { binding, resource };
  });
  const group = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
  return { pipeline, group, workgroups: kernel.workgroups, times: kernel.times ?? 1 };
}

/** Dispatches one after another in a pass: each sees what those before it wrote. */
export function encode(encoder: GpuEncoder, dispatches: readonly Dispatch[]): void {
  const pass = encoder.beginComputePass();
  for (const { pipeline, group, workgroups, times } of dispatches) {
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(workgroups, times);
  }
  pass.end();
}

/**
 * Does what WebGPU does not refuse at once: kernels that do not compile, buffers that there is no memory for.
 * @returns what it made, and a promise that is refused with a DeviceError where WebGPU found fault with it
 */
export function checked<T>(device: GpuDevice, what: string, make: () => T): { made: T; ready: Promise<void> } {
  device.pushErrorScope('validation');
  device.pushErrorScope('out-of-memory');
  const asked = (): ReturnType<GpuDevice['popErrorScope']>[] => [device.popErrorScope(), device.popErrorScope()];
  try {
    const made = make();
    return { made, ready: outcome(what, asked()) };
  } catch (error) {
    void Promise.allSettled(asked());
    throw error;
  }
}

const losses = new WeakMap<GpuDevice, DeviceError>();
const watched = new WeakSet<GpuDevice>();

/** Takes note of a device's loss, from now on. */
export function watchForLoss(device: GpuDevice): void {
  if (watched.has(device)) return;
  watched.add(device);
  void device.lost.then(({ reason, message }) => {
    const why = [reason, message].filter(Boolean).join(': ');
    const told = `The WebGPU device was lost${why && ` (${why})`}, and what its models had on it is gone. Load the model again (the page, where that fails too), or take the device 'wasm'.`;
    losses.set(device, new DeviceError(told, { device: 'webgpu', reason }));
  });
}

/** Whether a device is known to be lost. */
export const isLost = (device: GpuDevice): boolean => losses.has(device);

/** @throws DeviceError where the device is known to be lost */
export function checkLoss(device: GpuDevice): void {
  const loss = losses.get(device);
  if (loss) throw loss;
}

async function outcome(what: string, scopes: readonly ReturnType<GpuDevice['popErrorScope']>[]): Promise<void> {
  for (const fault of await Promise.all(scopes))
    if (fault) throw new DeviceError(`${what} cannot be on this WebGPU device: ${fault.message}`, { what });
}

/** Buffers of one owner, which go together. */
export class GpuBuffers {
  private readonly all = new Set<GpuBuffer>();

  constructor(readonly device: GpuDevice) {}

  /** Zeros that kernels read and write. */
  storage(bytes: number): GpuBuffer {
    return this.make(bytes, STORAGE | COPY_SRC | COPY_DST);
  }

  /** Values that kernels read. */
  filled(values: Float32Array | Uint32Array | Int32Array | Uint8Array | Uint16Array): GpuBuffer {
    const size = Math.max(4, Math.ceil(values.byteLength / 4) * 4);
    const buffer = this.make(size, STORAGE | COPY_SRC | COPY_DST, true);
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    new Uint8Array(buffer.getMappedRange()).set(bytes);
    buffer.unmap();
    return buffer;
  }

  /** What is copied into it can be read on the host. */
  staging(bytes: number): GpuBuffer {
    return this.make(bytes, MAP_READ | COPY_DST);
  }

  private make(bytes: number, usage: number, mappedAtCreation = false): GpuBuffer {
    const size = Math.max(4, Math.ceil(bytes / 4) * 4);
    const buffer = this.device.createBuffer({ size, usage, mappedAtCreation });
    this.all.add(buffer);
    return buffer;
  }

  dispose(): void {
    for (const buffer of this.all) buffer.destroy();
    this.all.clear();
  }
}

/** The bytes of a staging buffer, once what was submitted is done. */
export async function bytesOf(staging: GpuBuffer): Promise<ArrayBuffer> {
  await staging.mapAsync(READ);
  const bytes = staging.getMappedRange().slice(0);
  staging.unmap();
  return bytes;
}
