/** A WebGPU device in Node.js: Dawn, on a card or, where there is none, on SwiftShader as Chromium brings it. */
import * as fs from 'node:fs';
import type { GpuDevice } from '../../src/kernels/webgpu/gpu.js';

/** SwiftShader's description, as Vulkan's loader looks for it. */
const SWIFTSHADER = ['/usr/lib/chromium', '/usr/lib/chromium-browser', '/opt/google/chrome'].map(
  (folder) => `${folder}/vk_swiftshader_icd.json`,
);

interface Adapter {
  readonly info: { readonly vendor: string; readonly description: string };
  requestDevice(): Promise<GpuDevice & { destroy(): void }>;
}

/** What is let go of goes with all of its devices, even those in use. */
const held: object[] = [];

/** Dawn's navigator.gpu; null where the package is not installed. */
async function dawnGpu(): Promise<{ requestAdapter(): Promise<Adapter | null> } | null> {
  // at the first call Vulkan's loader reads it
  const found = SWIFTSHADER.find((file) => fs.existsSync(file));
  if (found !== undefined) process.env['VK_ICD_FILENAMES'] ??= found;
  process.env['XDG_RUNTIME_DIR'] ??= '/tmp'; // a line on the terminal else
  try {
    const { create } = (await import('webgpu')) as unknown as { create(flags: string[]): never };
    const gpu = create([]);
    held.push(gpu);
    return gpu;
  } catch {
    return null;
  }
}

let device: Promise<GpuDevice | null> | null = null;

async function request(): Promise<GpuDevice | null> {
  const adapter = await (await dawnGpu())?.requestAdapter();
  return (await adapter?.requestDevice()) ?? null;
}

/** describe() with a device of default limits; where there is none, one line says so and nothing of the suite runs. */
export function onWebGpu(title: string, suite: (device: () => GpuDevice) => void): void {
  describe(title, function () {
    this.timeout(60_000);
    let made: GpuDevice | null = null;
    before(async function () {
      device ??= request();
      made = await device;
      if (made) return;
      process.stderr.write(`${title}: skipped, since there is no WebGPU (Chromium brings SwiftShader)\n`);
      this.skip();
    });
    suite(() => made!);
  });
}
