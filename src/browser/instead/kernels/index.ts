/** Kernels that are parts of XLA's programs: none of them can run here, as null says. What is not named here is `otherwise`, too. */
const otherwise = (): null => null;
const noInstructions = (): readonly string[] => [];
export const denseInstructions = noInstructions;
export const denseProduct = otherwise;
export const int4Instructions = noInstructions;
export const layerInstructions = noInstructions;
export { TILE } from '../../../kernels/host/spec.js';
export { wasmDense } from '../../../kernels/wasm/dense.js';
export { heldBytes, packedProduct, packedRows, wasmTakes } from '../../../kernels/wasm/packed.js';
export { wasmSteps, type WasmSteps } from '../../../kernels/wasm/steps.js';
export { webGpuSteps, type WebGpuSteps } from '../../../kernels/webgpu/call.js';
export { webGpuRows, webGpuTakes } from '../../../kernels/webgpu/packed.js';
