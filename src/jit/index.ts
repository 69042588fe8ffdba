/**
 * Compiling tfjs code with XLA through tfjs-node: `jit` for functions of tensors, `Program` for functions over
 * variables that live on the device, and the ops that tfjs lacks for stored element types, loops and random numbers.
 *
 * - `backend.ts`, `graph.ts`, `infer.ts`, `shapes.ts`: tracing without executing
 * - `graphdef.ts`, `proto.ts`, `session.ts`: TensorFlow's graph messages and the session that runs them
 * - `function.ts`, `loop.ts`, `control.ts`, `program.ts`, `jit.ts`: programs
 * - `ops.ts`, `batch_matmul.ts`, `narrow.ts`: ops for traced and eager code
 * - `triton.ts`, `row_*.ts`, `recurrence.ts`, `conv_kernel.ts`, `batch_*.ts`, `step_kernel.ts`, `state_*.ts`: kernels of our own for GPUs; `host_kernel.ts`: for CPUs; `call_module.ts`: their calls
 */
export * from './types.js';
export { Program } from './program/program.js';
export { jit, type JitFunction, type JitOptions } from './program/jit.js';
export type { Nest } from './program/nest.js';
export * from './ops/ops.js';
export { batchMatMulBf16, type BatchMatMulOptions } from './ops/batch_matmul.js';
export { roundToBf16 } from './fusion/round_bf16.js';
export { compilesForGpu, tritonRuns } from './custom_call/triton.js';
export { hasHostKernel, runHostKernel } from './custom_call/host_call.js';
export { whileLoop } from './ops/control.js';
export { GRAPH_BACKEND, isSymbolic, isTracing } from './trace/backend.js';
export { tracedOps } from './trace/shapes.js';
export type { Attr, Attrs } from './trace/graphdef.js';
