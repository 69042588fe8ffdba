/** Runs a suite once per tfjs backend. */
import * as tf from '@tensorflow/tfjs';
import { loadTensorFlow, selectBackend } from '../../src/runtime/index.js';
import '@tensorflow/tfjs-backend-wasm';
import { setWasmPaths } from '@tensorflow/tfjs-backend-wasm';
import { createRequire } from 'node:module';
import * as path from 'node:path';

export type BackendName = 'tensorflow' | 'wasm' | 'cpu';

const require = createRequire(import.meta.url);
let loaded = false;

/** Selects a backend, loading what it needs. TEST_DEVICE=gpu: TensorFlow's must be one on a GPU. */
export async function useBackend(name: BackendName): Promise<void> {
  if (name === 'tensorflow' && !loaded) {
    if (process.env['TEST_DEVICE'] === 'gpu') await selectBackend('gpu');
    else loadTensorFlow();
    loaded = true;
  }
  if (name === 'wasm') setWasmPaths(path.dirname(require.resolve('@tensorflow/tfjs-backend-wasm')) + '/');
  await tf.setBackend(name);
  await tf.ready();
}

/** describe() per backend, with the backend selected for its tests. */
export function onBackends(names: readonly BackendName[], title: string, suite: (backend: BackendName) => void): void {
  for (const name of names) {
    describe(`${title} [${name}]`, () => {
      before(() => useBackend(name));
      suite(name);
    });
  }
}

/** Tensors alive, in tfjs' count and, on the native backend, in TensorFlow's. */
export function tensorCount(): { tf: number; binding: number } {
  const backend = tf.backend() as unknown as { binding?: { getNumOfTensors(): number } };
  return { tf: tf.memory().numTensors, binding: backend.binding?.getNumOfTensors() ?? 0 };
}
