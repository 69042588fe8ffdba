/**
 * Loading the native TensorFlow backend: tfjs-node-gpu, built against the libtensorflow of the pip wheel, lives in a
 * cache folder (see setup). Its `require('@tensorflow/tfjs')` is answered with our copy, so that one engine serves all.
 */
import { createRequire } from 'node:module';
import * as fs from 'node:fs';
import * as path from 'node:path';
import Module from 'node:module';
import * as os from 'node:os';
import { DeviceError } from '../errors/index.js';

/** The folder that holds set-up runtimes. */
export function cacheRoot(): string {
  const base = process.env.XDG_CACHE_HOME || path.join(os.homedir(), '.cache');
  return path.join(base, 'tfjs-mamba2');
}

/** The runtime folder in use, or null when none was set up. */
export function runtimeDir(): string | null {
  const named = process.env.TFJS_MAMBA2_RUNTIME;
  const dir = named || path.join(cacheRoot(), 'runtime', 'manual');
  return fs.existsSync(path.join(dir, 'node_modules/@tensorflow/tfjs-node-gpu/lib/napi-v8/tfjs_binding.node'))
    ? dir
    : null;
}

/** Loads tfjs-node-gpu from the runtime folder; registers and selects the backend 'tensorflow'. */
export function loadTensorFlow(): void {
  const dir = runtimeDir();
  if (!dir) throw new DeviceError('The TensorFlow runtime is not set up. Run `npx mamba2 setup`.');
  process.env.TF_CPP_MIN_LOG_LEVEL ??= '2';
  const require = createRequire(path.join(dir, 'package.json'));
  const resolver = Module as unknown as { _resolveFilename: (request: string, ...rest: unknown[]) => string };
  const original = resolver._resolveFilename;
  const tfjs = createRequire(import.meta.url).resolve('@tensorflow/tfjs');
  resolver._resolveFilename = function (request, ...rest) {
    if (request === '@tensorflow/tfjs') return tfjs;
    return original.call(this, request, ...rest);
  };
  try {
    require('@tensorflow/tfjs-node-gpu');
  } finally {
    resolver._resolveFilename = original;
  }
}
