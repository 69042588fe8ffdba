/** Runs kernels for GPUs in plain loops (ptx.ts, ttir.ts) over tensors, in place of a card: what layers make of them can so be checked. */
import * as tf from '@tensorflow/tfjs';
import { decodeFloat32, encodeFloat32 } from '../../base/stored_dtypes.js';
import { castFloat32, constantOf, trueDtype } from '../../jit/index.js';
import type { KernelRunner } from '../../jit/custom_call/triton.js';
import { runPtx } from './ptx.js';
import { type Memory, runTtir } from './ttir.js';

type Buffer = Float32Array | Int32Array | Uint8Array;

/** @param wide bfloat16 as numbers, which the interpreter of Triton's language takes */
function bytesOf(x: tf.Tensor, wide: boolean): Buffer {
  const dtype = trueDtype(x);
  if (dtype === 'bfloat16' && wide) return (castFloat32(x).dataSync() as Float32Array).slice();
  if (dtype === 'bfloat16') return encodeFloat32(castFloat32(x).dataSync() as Float32Array, 'BF16').slice();
  return x.dataSync().slice();
}

/**
 * For withKernelRunner() of src/jit. What a kernel does not write of its results is not a number, or -1.
 * @param names kernels that were run are noted here
 */
export function interpretKernels(names: string[] = []): KernelRunner {
  return (kernel, inputs, results, aliases) => {
    names.push(kernel.name);
    const ptx = kernel.text.includes('elementwise_inline_asm');
    const given = inputs.map((x) => bytesOf(x, !ptx));
    const made = results.map(({ shape, dtype }, i): Buffer => {
      const input = aliases.get(i);
      if (input !== undefined) return given[input]!; // the same memory
      const size = tf.util.sizeFromShape([...shape]);
      if (dtype === 'bfloat16' && ptx) return new Uint8Array(2 * size).fill(0xff); // not numbers
      return dtype === 'int32' ? new Int32Array(size).fill(-1) : new Float32Array(size).fill(NaN);
    });
    const memory = [...given, ...made];
    if (ptx) runPtx(kernel, memory);
    else runTtir(kernel, memory as Memory);
    return results.map(({ shape, dtype }, i) => {
      const own = made[i]!;
      const values = dtype === 'bfloat16' && ptx ? decodeFloat32(own as Uint8Array, 'BF16') : own;
      return constantOf([...values], shape, dtype);
    });
  };
}
