/**
 * Where set-up runtimes live and which one is in use. A runtime folder holds tfjs-node-gpu, its compiled addon and a
 * libtensorflow; it is outside every project, so that one set-up serves all of a user's projects.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { cacheRoot } from '../base/cache_root.js';
import { DeviceError } from '../base/errors.js';

export { cacheRoot };

/** Version of the npm package @tensorflow/tfjs-node-gpu that a runtime folder holds. */
export const TFJS_NODE_VERSION = '4.22.0';
/** Version of TensorFlow whose wheel gives the libraries. */
export const TENSORFLOW_VERSION = '2.21.0';
/** Raised when the layout of a runtime folder changes, so that an older one is not taken for a current one. */
const LAYOUT = 2;
/**
 * Raised when the addons of native/ are called otherwise, so that no program meets an addon of other sources: a folder has room for one
 * version. The addon says its own when it is loaded.
 */
export const NATIVE_VERSION = 28;

/** Which libtensorflow: `cpu` is half the size, `gpu` runs on both. */
export type RuntimeVariant = 'cpu' | 'gpu';

/** Written last into a runtime folder: what is in it. */
export interface RuntimeManifest {
  variant: RuntimeVariant;
  tfjsNode: string;
  /** Version that the library itself reports, e.g. `2.21.0`. */
  tensorflow: string;
  /** The wheel's name and version, or the folder that the user named. */
  library: string;
  /** ISO date of the set-up. */
  created: string;
}

/** The folder that a set-up of this variant fills on this machine. */
export function runtimeSlot(variant: RuntimeVariant): string {
  const key = [
    `tfjs-${TFJS_NODE_VERSION}`,
    `tf-${TENSORFLOW_VERSION}`,
    variant,
    `${process.platform}-${process.arch}`,
    'napi8',
    `v${LAYOUT}.${NATIVE_VERSION}`,
  ].join('_');
  return path.join(cacheRoot(), 'runtime', key);
}

/** The tfjs-node-gpu package inside a runtime folder. */
export function packageDir(runtime: string): string {
  return path.join(runtime, 'node_modules', '@tensorflow', 'tfjs-node-gpu');
}

/** The compiled addon inside a runtime folder. */
export function addonPath(runtime: string): string {
  return path.join(packageDir(runtime), 'lib', 'napi-v8', 'tfjs_binding.node');
}

/** What a runtime folder says of itself, or null when it is not whole. */
export function readManifest(runtime: string): RuntimeManifest | null {
  try {
    if (!fs.existsSync(addonPath(runtime))) return null;
    return JSON.parse(fs.readFileSync(path.join(runtime, 'runtime.json'), 'utf8')) as RuntimeManifest;
  } catch {
    return null;
  }
}

/** Whether the user has named the runtime folder, which is trusted then, whosever it is. */
export function isNamed(): boolean {
  return Boolean(process.env.TFJS_MAMBA2_RUNTIME);
}

/**
 * The runtime folder in use, or null when none was set up: the one named by `TFJS_MAMBA2_RUNTIME`, else the gpu one,
 * else the cpu one (`device: 'cpu'` turns that order around).
 *
 * @throws DeviceError when `TFJS_MAMBA2_RUNTIME` names a folder that is not a runtime
 */
export function runtimeDir(device: 'auto' | 'cpu' | 'gpu' = 'auto'): string | null {
  const named = process.env.TFJS_MAMBA2_RUNTIME;
  if (named) {
    if (fs.existsSync(addonPath(named))) return named;
    throw new DeviceError(
      `TFJS_MAMBA2_RUNTIME names ${named}, which holds no TensorFlow runtime (no ${addonPath(named)}). ` +
        'Unset it, or name a folder that `mamba2 setup` made.',
      { runtime: named },
    );
  }
  const order: RuntimeVariant[] = device === 'cpu' ? ['cpu', 'gpu'] : ['gpu', 'cpu'];
  for (const variant of order) {
    const slot = runtimeSlot(variant);
    if (readManifest(slot)) return slot;
  }
  return null;
}
