/** The causal convolution by kernels of our own in traced code, with its gradients. */
import * as tf from '@tensorflow/tfjs';
import { TracingError, castFloat32, castTo } from '../../jit/index.js';
import { runTriton, tritonRuns } from '../../jit/custom_call/triton.js';
import { convolutionFits, type ConvolutionSpec, weightGradientParts } from './spec.js';
import { convolutionInputGradient, convolutionKernel, convolutionWeightGradient } from './triton.js';

export interface ConvolutionInputs {
  /** The channels, [b, t, d]: the gradient goes to it. */
  x: tf.Tensor3D;
  /** Rows that hold them, [b, t, width], and the first of their channels there: values come from it. */
  rows: tf.Tensor3D;
  first: number;
  /** [d, 1, k] */
  weight: tf.Tensor;
  /** [d] */
  bias?: tf.Tensor;
  /** [b, k-1, d] */
  context?: tf.Tensor3D;
}

/**
 * y[t] = bias + Σ_i weight[:, 0, i]·x[t-(k-1)+i], rounded to bfloat16 as its inputs are and its gradients will be; in memory so. Traced code
 * for a GPU alone. With gradients where no context is given.
 * @returns [b, t, d]; null where the kernels cannot be written, or run on no GPU
 */
export function convolutionOnGpu({ x, rows, first, weight, bias, context }: ConvolutionInputs): tf.Tensor3D | null {
  const [b, t, channels] = x.shape;
  const taps = weight.shape[2]!;
  const sizes = { b, t, channels, taps, width: rows.shape[2], first };
  const spec: ConvolutionSpec = { ...sizes, bias: bias !== undefined, context: context !== undefined };
  if (!tritonRuns() || !convolutionFits(spec)) return null;
  return tf.customGrad((...args) => {
    const save = args.pop() as (tensors: tf.Tensor[]) => void;
    const [, w, offset] = args as tf.Tensor[];
    const rowsBf16 = castTo(rows, 'bfloat16');
    const byTap = tf.transpose(tf.reshape(w!, [channels, taps]), [1, 0]); // [k, d]
    const inputs = [rowsBf16, byTap, ...(offset ? [offset] : []), ...(context ? [context] : [])];
    save([byTap, rowsBf16]);
    return {
      value: castFloat32(runTriton(convolutionKernel(spec), inputs, x.shape, 'bfloat16')),
      gradFunc: (dy: tf.Tensor, [given, read]: tf.Tensor[]) => {
        if (context) throw new TracingError('A convolution by a kernel has no gradient where it has a context.');
        const dyBf16 = castTo(dy, 'bfloat16');
        const dx = castFloat32(runTriton(convolutionInputGradient(spec), [dyBf16, given!], x.shape, 'bfloat16'));
        const shape = [weightGradientParts(spec), taps + 1, channels];
        const sums = tf.sum(runTriton(convolutionWeightGradient(spec), [read!, dyBf16], shape), 0); // [k+1, d]
        const dWeight = tf.transpose(tf.slice(sums, [0, 0], [taps, channels]), [1, 0]);
        const dBias = tf.reshape(tf.slice(sums, [taps, 0], [1, channels]), [channels]);
        return [dx, tf.reshape(dWeight, weight.shape), ...(offset ? [dBias] : [])];
      },
    };
  })(x, weight, ...(bias ? [bias] : [])) as tf.Tensor3D;
}
