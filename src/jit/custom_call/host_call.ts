/** Kernels of our own on CPUs (native/host_kernels.cc), called from programs that XLA compiles as foreign functions of XLA. */
import type * as tf from '@tensorflow/tfjs';
import { hostKernels } from '../../runtime/index.js';
import { symbolic, valueOf } from '../trace/backend.js';
import { callModule } from './call_module.js';
import { nodeBackend } from '../../runtime/binding.js';

/** Whether programs may call a kernel of that name; never on a GPU. */
export function hasHostKernel(name: string): boolean {
  return hostKernels().includes(name) && !nodeBackend().isUsingGpuDevice;
}

/**
 * Calls a kernel of ours. Traced code for a CPU alone, and only where hasHostKernel() says so. TensorFlow's own node for foreign
 * functions knows an older interface only, which gives a kernel no threads; so the call is a module of StableHLO.
 * @param sizes whole numbers that the kernel reads @param shape of the result, float32
 */
export function runHostKernel(
  name: string,
  sizes: readonly number[],
  inputs: readonly tf.Tensor[],
  shape: readonly number[],
): tf.Tensor {
  const call = {
    target: `tfjs_mamba2_${name}`,
    config: `{sizes = array<i64: ${sizes.join(', ')}>}`,
    results: [{ shape, dtype: 'float32' as const }],
  };
  return symbolic(callModule(call, inputs.map(valueOf))[0]!);
}
