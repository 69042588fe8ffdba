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
export { Program } from './program.js';
export { jit, type JitFunction, type JitOptions } from './jit.js';
export type { Nest } from './nest.js';
export * from './ops.js';
export { batchMatMulBf16, type BatchMatMulOptions } from './batch_matmul.js';
export { convolutionOnGpu, type ConvolutionInputs } from './conv_kernel.js';
export { inBfloat16 } from './narrow.js';
export { rowProduct, type RowFormat, type RowProductInputs } from './row_product.js';
export { linearRecurrence } from './recurrence.js';
export { stepValues } from './step_kernel.js';
export { stateStep } from './state_kernel.js';
export {
  batchLayout,
  batchProduct,
  batchRows,
  type BatchProductInputs,
  type BatchProductResult,
  type BatchRows,
} from './batch_product.js';
export { compilesForGpu, tritonRuns } from './triton.js';
export { hasHostKernel, runHostKernel } from './host_kernel.js';
export { whileLoop } from './control.js';
export { GRAPH_BACKEND, isSymbolic, isTracing } from './backend.js';
export { tracedOps } from './shapes.js';
export type { Attr, Attrs } from './graphdef.js';
