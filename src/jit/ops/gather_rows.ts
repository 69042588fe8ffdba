/** Rows of a table of any element type. */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError } from '../../base/errors.js';
import { attr } from '../trace/graphdef.js';
import { cast, castTo } from './element_types.js';
import { rawOp, trueDtype } from './raw_op.js';

const GATHER_ROWS = 'GatherRows';

/**
 * Rows of a table: w[ids] as float32.
 * Ids must lie in 0 … v-1: compiled code cannot check them (out of range, they read the last row).
 * @param w [v, d] of any element type
 * @param ids int32 [m]
 * @returns float32 [m, d]; gradient for w in w's own type
 * @example gatherRows(tf.tensor2d([[1, 2], [3, 4]]), tf.tensor1d([1, 1], 'int32')); // [[3, 4], [3, 4]]
 */
export function gatherRows(w: tf.Tensor, ids: tf.Tensor): tf.Tensor2D {
  if (w.rank !== 2 || ids.rank !== 1) {
    throw new ArgumentError(
      `gatherRows: got w [${w.shape.join(',')}] and ids [${ids.shape.join(',')}], expected [v, d] and [m].`,
      {
        w: w.shape,
        ids: ids.shape,
      },
    );
  }
  return tf.engine().runKernel(GATHER_ROWS, { w, ids }) as tf.Tensor2D;
}

tf.registerKernel({
  kernelName: GATHER_ROWS,
  backendName: 'tensorflow',
  kernelFunc: ({ inputs }) =>
    tf.tidy(() => {
      const [w, ids] = [inputs['w'] as tf.Tensor, inputs['ids'] as tf.Tensor];
      const rows = rawOp('GatherV2', [w, ids, tf.scalar(0, 'int32')], { batch_dims: attr.int(0) })[0]!;
      return trueDtype(rows) === 'float32' ? rows : cast(rows, 'float32');
    }),
});

tf.registerGradient({
  kernelName: GATHER_ROWS,
  inputsToSave: ['w', 'ids'],
  gradFunc: (dy, saved) => {
    const [w, ids] = saved as [tf.Tensor, tf.Tensor1D];
    return {
      w: () => tf.tidy(() => castTo(tf.unsortedSegmentSum(dy as tf.Tensor, ids, w.shape[0]), trueDtype(w))),
      ids: () => tf.zerosLike(ids),
    };
  },
});
