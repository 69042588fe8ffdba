/**
 * Kernels of our own for Mamba-2's kind of model: for GPUs as Triton or PTX inside XLA's programs, for CPUs in C++.
 * Each has a specification, a reference in plain code, and one or two written forms.
 */
export { convolutionOnGpu, type ConvolutionInputs } from './causal_conv/convolution.js';
export { linearRecurrence } from './chunk_recurrence/recurrence.js';
export { separateEpilogue } from './epilogue/kernel.js';
export {
  rowLayout,
  fewRowsProduct,
  packRows,
  type FewRowsInputs,
  type FewRowsResult,
  type FewRows,
} from './few_rows/product.js';
export { oneRowProduct, type WeightFormat, type OneRowInputs } from './one_row/product.js';
export { ssmStep } from './ssm_step/step.js';
