/** The backend of the page, which its address names, whatever a suite asks for: `?device=wasm`. */
import * as tf from '@tensorflow/tfjs';
import { configureBrowser } from '../../../src/browser/settings.js';
import { selectBackend } from '../../../src/runtime/index.js';
import type { DeviceLike } from '../../../src/base/devices.js';

// models/tiny-books-mamba2 is a name on the hub
configureBrowser({ hub: location.origin });

export const device = (new URL(location.href).searchParams.get('device') ?? 'wasm') as DeviceLike;

export async function useBackend(): Promise<void> {
  await selectBackend(device);
}

/** One describe(), on the page's backend. */
export function onBackends(_names: readonly string[], title: string, suite: (backend: string) => void): void {
  describe(`${title} [${device}]`, () => {
    before(useBackend);
    suite(String(device));
  });
}

export const tensorCount = (): { tf: number } => ({ tf: tf.memory().numTensors });
