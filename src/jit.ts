/** `tfjs-mamba2/jit`: XLA for any TensorFlow.js code. `jit` compiles a function of tensors, `Program` several over variables that stay. */
export { jit, type JitFunction, type JitOptions, type Nest, Program } from './jit/index.js';
export type {
  Bytes,
  CompileHook,
  CompilePhase,
  DefineOptions,
  Dtype,
  GraphCache,
  InputValue,
  LoopOptions,
  ProgramOptions,
  TensorSpec,
  TracedFunction,
  TraceResult,
  VariableDtype,
  VariableSpec,
} from './jit/index.js';

// ops for traced and eager code, of element types that tfjs does not have
export {
  type Attr,
  attr,
  type Attrs,
  bitcast,
  bitwiseAnd,
  castFloat32,
  castTo,
  constantOf,
  dtypeAttr,
  gatherRows,
  isSymbolic,
  isTracing,
  matMulBf16,
  matMulStored,
  outlineBorder,
  rawOp,
  reshapeAny,
  rightShift,
  statelessNormal,
  statelessUniform,
  tracedOps,
  trueDtype,
  whileLoop,
} from './jit/index.js';
export { configureRuntime, loadTensorFlow, selectBackend } from './runtime/index.js';
export { ArgumentError, DeviceError, DisposedError, Mamba2Error } from './base/errors.js';
export { JitError, TracingError } from './jit/index.js';
