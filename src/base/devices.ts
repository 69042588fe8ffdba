/** The names of devices. Imports nothing, so that a command line can list them without loading TensorFlow.js. */

/** Names of devices, as `device` options take them. */
export const DEVICES = ['auto', 'cpu', 'gpu', 'tensorflow', 'wasm', 'js'] as const;

/**
 * `auto`: TensorFlow when it is set up (on a GPU when there is one), else WebAssembly. `cpu`: the same without GPUs.
 * `gpu`: TensorFlow on a GPU or an error. `tensorflow`: TensorFlow or an error. `wasm`: WebAssembly. `js`: plain
 * JavaScript, the slow backend that every tfjs has.
 */
export type Device = (typeof DEVICES)[number];
