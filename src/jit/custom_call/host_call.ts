/** Kernels of our own on CPUs (native/host_kernels.cc), called from programs that XLA compiles as foreign functions of XLA. */
import type * as tf from '@tensorflow/tfjs';
import { hostKernels } from '../../runtime/index.js';
import { symbolic, valueOf } from '../trace/backend.js';
import type { Dtype } from '../types.js';
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
  return runHostKernelAll(name, sizes, inputs, [{ shape, dtype: 'float32' }])[0]!;
}

/**
 * As runHostKernel, with several results.
 * @param aliases of results that take an input's memory, the number of that input, of the same type: the kernel may write over what it reads
 * there. XLA copies the input first where something else still needs it.
 */
export function runHostKernelAll(
  name: string,
  sizes: readonly number[],
  inputs: readonly tf.Tensor[],
  results: readonly { shape: readonly number[]; dtype: Dtype }[],
  aliases: ReadonlyMap<number, number> = new Map(),
): tf.Tensor[] {
  const call = {
    target: `tfjs_mamba2_${name}`,
    config: `{sizes = array<i64: ${sizes.join(', ')}>}`,
    results: results.map(({ shape, dtype }) => ({ shape: [...shape], dtype })),
    aliases,
  };
  return callModule(call, inputs.map(valueOf)).map(symbolic);
}
