/** Kernels of our own on CPUs (native/host_kernels.cc), called from programs that XLA compiles as foreign functions of XLA. */
import type * as tf from '@tensorflow/tfjs';
import { hostKernels } from '../runtime/index.js';
import { record, symbolic, valueOf } from './backend.js';
import { dtypeNumber } from './dtypes.js';
import type { Value } from './graph.js';
import { attr } from './graphdef.js';
import { nodeBackend } from './native.js';
import type { Dtype } from './types.js';

/** Names of element types in MLIR. */
const ELEMENTS: Partial<Record<Dtype, string>> = { float32: 'f32', bfloat16: 'bf16', uint8: 'ui8', int32: 'i32' };

/** Version of the node below: the text is checked no further, and one platform is enough. */
const VERSION = 5;

/** Whether programs may call a kernel of that name; never on a GPU. */
export function hasHostKernel(name: string): boolean {
  return hostKernels().includes(name) && !nodeBackend().isUsingGpuDevice;
}

const typeOf = ({ shape, dtype }: Pick<Value, 'shape' | 'dtype'>): string =>
  `tensor<${[...shape, ELEMENTS[dtype]!].join('x')}>`;

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
  const values = inputs.map(valueOf);
  const types = values.map(typeOf);
  const result = typeOf({ shape, dtype: 'float32' });
  const parameters = values.map((_, i) => `%${i}`);
  const module = `module {
  func.func public @main(${parameters.map((p, i) => `${p}: ${types[i]}`).join(', ')}) -> ${result} {
    %y = stablehlo.custom_call @tfjs_mamba2_${name}(${parameters.join(', ')}) {api_version = 4 : i32, backend_config = {sizes = array<i64: ${sizes.join(', ')}>}} : (${types.join(', ')}) -> ${result}
    return %y : ${result}
  }
}`;
  const attrs = {
    version: attr.int(VERSION),
    module: attr.string(module),
    Sout: attr.shapes([shape]),
    Tout: attr.types([dtypeNumber('float32')]),
    Tin: attr.types(values.map(({ dtype }) => dtypeNumber(dtype))),
    dim_args_spec: attr.types([]),
    platforms: attr.types([]),
    function_list: attr.types([]),
    has_token_input_output: attr.bool(false),
    disabled_checks: attr.types([]),
    use_shardy_partitioner: attr.bool(false),
  };
  return symbolic(record('XlaCallModule', attrs, values)[0]!);
}
