/**
 * Compiling tfjs code with XLA through tfjs-node: `jit` for functions of tensors, `Program` for functions over
 * variables that live on the device, and the ops that tfjs lacks for stored element types.
 */
export * from './types.js';
export { Program } from './program.js';
export { jit, type JitFunction, type Nest } from './jit.js';
export * from './ops.js';
