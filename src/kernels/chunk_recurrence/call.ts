/** The linear recurrence by a kernel of our own in traced code, with its gradients. */
import * as tf from '@tensorflow/tfjs';
import { castFloat32, castTo } from '../../jit/index.js';
import { runTriton, tritonRuns } from '../../jit/custom_call/triton.js';
import { recurrenceFits } from './spec.js';
import { recurrenceKernel } from './triton.js';

/**
 * States before each step: y₀ = initial, yᵢ = decayᵢ₋₁·yᵢ₋₁ + xᵢ₋₁. With gradients. Traced code for a GPU alone.
 * @param x [b, c, h, size] @param decay [b, c, h] @param initial [b, h, size], zeros when absent
 * @param memory type of the states in memory, and of their gradients; they are carried in float32
 * @returns [b, c, h, size]; null where the kernel cannot be written, or runs on no GPU
 */
export function linearRecurrence(
  x: tf.Tensor4D,
  decay: tf.Tensor3D,
  initial?: tf.Tensor3D,
  memory: 'float32' | 'bfloat16' = 'float32',
): tf.Tensor4D | null {
  const [b, c, h, size] = x.shape;
  const spec = { b, c, h, size, initial: initial !== undefined, reverse: false, result: memory };
  if (!tritonRuns() || !recurrenceFits(spec)) return null;
  const wide = (t: tf.Tensor): tf.Tensor => (memory === 'bfloat16' ? castFloat32(t) : t);
  return tf.customGrad((...args) => {
    const save = args.pop() as (tensors: tf.Tensor[]) => void;
    const [xs, decays, before] = args as tf.Tensor[];
    const inputs = [xs!, decays!, ...(before ? [before] : [])];
    const value = wide(runTriton(recurrenceKernel(spec), inputs, x.shape, memory));
    save([decays!, value]);
    return {
      value,
      gradFunc: (dy: tf.Tensor, [kept, states]: tf.Tensor[]) => {
        // the same recurrence from the end: what a state gives to those after it
        const back = recurrenceKernel({ ...spec, initial: false, reverse: true, given: memory });
        const given = memory === 'bfloat16' ? castTo(dy, memory) : dy;
        const dx = wide(runTriton(back, [given, kept!], x.shape, memory));
        const dDecay = tf.sum(tf.mul(dx, states!), 3);
        if (!before) return [dx, dDecay];
        const at = (t: tf.Tensor): tf.Tensor => tf.reshape(tf.slice(t, [0, 0, 0, 0], [b, 1, h, size]), [b, h, size]);
        const firstKept = tf.reshape(tf.slice(kept!, [0, 0, 0], [b, 1, h]), [b, h, 1]);
        return [dx, dDecay, tf.add(at(dy), tf.mul(firstKept, at(dx)))];
      },
    };
  })(x, decay, ...(initial ? [initial] : [])) as tf.Tensor4D;
}
