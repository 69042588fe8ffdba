/** Recomputation, or gradient checkpointing (Chen et al. 2016): a function whose insides are computed again for the gradients, not kept. */
import * as tf from '@tensorflow/tfjs';
import { isTracing } from '../jit/trace/backend.js';
import { barrier } from '../jit/fusion/barrier.js';

/** Under XLA the second computation would be found equal to the first and merged with it; a barrier keeps them apart. */
function apart(tensors: readonly tf.Tensor[]): tf.Tensor[] {
  if (!isTracing()) return tensors.map((x) => tf.clone(x));
  return barrier(tensors);
}

/**
 * f(...inputs), keeping only the inputs until the gradients are taken.
 * @param f a pure function of its tensors; what else it uses gets no gradient
 */
export function recompute(f: (...inputs: tf.Tensor[]) => tf.Tensor, inputs: readonly tf.Tensor[]): tf.Tensor {
  const op = tf.customGrad((...args) => {
    const save = args.pop() as unknown as (tensors: tf.Tensor[]) => void;
    const xs = args as tf.Tensor[];
    const value = tf.tidy(() => f(...xs));
    save(xs);
    return {
      value,
      gradFunc: (dy: tf.Tensor, saved: tf.Tensor[]) => {
        // tfjs resets its tape when a gradient inside a gradient is done: put ours aside meanwhile
        const { state } = tf.engine() as unknown as { state: { activeTape: unknown } };
        const tape = state.activeTape;
        try {
          const [first, ...rest] = apart([dy, ...saved]);
          return tf.grads((...ys: tf.Tensor[]) => f(...ys))(rest, first);
        } finally {
          state.activeTape = tape;
        }
      },
    };
  });
  return op(...inputs);
}
