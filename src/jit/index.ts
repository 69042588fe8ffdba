/**
 * Compiling tfjs code with XLA through tfjs-node: `jit` for functions of tensors, `Program` for functions over variables that live on the
 * device, and the ops that tfjs lacks for stored element types, loops and random numbers. What is exported here is for everybody; other
 * rooms import what they need besides from its file. Each folder imports those above it:
 *
 * - `trace/`: tracing without executing. The backend `graph`, graphs under construction, types and shapes of what ops give, TensorFlow's messages
 * - `ops/`: ops for traced and eager code
 * - `custom_call/`: calls of kernels that are not TensorFlow's: Triton and PTX, which are written here, and functions of the host
 * - `fusion/`: what XLA compiles together and what it keeps in memory: outlined functions, barriers, materialised and rounded values
 * - `program/`: functions over variables, loops of them, graphs that are kept, sessions that run them; `jit`
 */
export * from './types.js';
export { JitError, TracingError } from './errors.js';
export { Program } from './program/program.js';
export { jit, type JitFunction, type JitOptions } from './program/jit.js';
export type { Nest } from './program/nest.js';
export { attr, dtypeAttr, rawOp, trueDtype } from './ops/raw_op.js';
export {
  bitcast,
  bitwiseAnd,
  castFloat32,
  castTo,
  constantOf,
  reshapeAny,
  rightShift,
  sumInDtype,
} from './ops/element_types.js';
export { matMulBf16, matMulStored } from './ops/matmul.js';
export { batchMatMulBf16, type BatchMatMulOptions } from './ops/batch_matmul.js';
export { gatherRows } from './ops/gather_rows.js';
export { statelessNormal, statelessUniform } from './ops/random.js';
export { whileLoop } from './ops/while_loop.js';
export { outlineBorder } from './fusion/outline_border.js';
export { roundToBf16 } from './fusion/round_bf16.js';
export { GRAPH_BACKEND, isSymbolic, isTracing } from './trace/backend.js';
export { tracedOps } from './trace/shapes.js';
export type { Attr, Attrs } from './trace/graphdef.js';
