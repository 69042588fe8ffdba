/** Kernels in Triton's language are parts of programs of XLA. */
export const tritonRuns = (): boolean => false;
