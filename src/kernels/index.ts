/**
 * Kernels of our own for Mamba-2's kind of model: for GPUs as Triton or PTX inside XLA's programs, for CPUs in C++. README.md has the
 * glossary and says how to add one. What layers call is exported here; each function gives null where its kernel cannot run.
 */
export { convolutionOnGpu, type ConvolutionInputs } from './causal_conv/call.js';
export { linearRecurrence } from './chunk_recurrence/call.js';
export { separateEpilogue } from './epilogue/call.js';
export {
  type FewRows,
  type FewRowsInputs,
  fewRowsProduct,
  type FewRowsResult,
  packRows,
  rowLayout,
} from './few_rows/call.js';
export { type OneRowInputs, oneRowProduct } from './one_row/call.js';
export { ssmStep } from './ssm_step/call.js';
export { int4Instructions, int4Product, type Instructions, type TiledMatrix } from './host/call.js';
export { denseInstructions, denseProduct } from './host/dense.js';
export { type HostMatrix, layerInstructions, layerStep } from './host/layer.js';
export { TILE } from './host/spec.js';
export { wasmDense } from './wasm/dense.js';
export { heldBytes, type PackedMatrix, packedProduct, packedRows, wasmTakes } from './wasm/packed.js';
export { wasmSteps, type WasmSteps } from './wasm/steps.js';
export { webGpuSteps, type WebGpuSteps } from './webgpu/call.js';
export type { StepChoice } from './webgpu/steps.js';
export { webGpuRows, webGpuTakes } from './webgpu/packed.js';
