/** WebGPU in Node.js: Dawn, Chromium's implementation, by the npm package webgpu; on a card, or on the SwiftShader that Chromium brings. */
import * as fs from 'node:fs';
import type { GpuDevice } from '../../src/kernels/webgpu/gpu.js';

/** SwiftShader's description, as Vulkan's loader looks for it. */
const SWIFTSHADER = ['/usr/lib/chromium', '/usr/lib/chromium-browser', '/opt/google/chrome'].map(
  (folder) => `${folder}/vk_swiftshader_icd.json`,
);

export interface DawnAdapter {
  readonly info: { readonly vendor: string; readonly architecture: string; readonly description: string };
  requestDevice(): Promise<GpuDevice & { destroy(): void }>;
}

export interface DawnGpu {
  requestAdapter(): Promise<DawnAdapter | null>;
}

/** What is let go of goes with all of its devices, even those in use. */
const held: object[] = [];

/** Has Vulkan's loader, which reads it at the first call, find SwiftShader alone, unless VK_ICD_FILENAMES says otherwise. */
export function useSoftwareVulkan(): void {
  const found = SWIFTSHADER.find((file) => fs.existsSync(file));
  if (found !== undefined) process.env['VK_ICD_FILENAMES'] ??= found;
}

/**
 * Dawn's navigator.gpu; null where the package cannot be loaded.
 * @param software SwiftShader, where Chromium is installed and VK_ICD_FILENAMES does not say otherwise; else the machine's own
 */
export async function dawnGpu(software: boolean): Promise<DawnGpu | null> {
  if (software) useSoftwareVulkan();
  process.env['XDG_RUNTIME_DIR'] ??= '/tmp'; // else drivers write a line to the terminal
  try {
    const { create } = (await import('webgpu')) as unknown as { create: (flags: string[]) => DawnGpu };
    const gpu = create([]);
    held.push(gpu);
    return gpu;
  } catch {
    return null;
  }
}
