/** One token of each row through the model, over the variables of a program. Traced code only. */
import * as tf from '@tensorflow/tfjs';
import type { Pieces } from '../../base/pieces.js';
import { outlineBorder } from '../../jit/index.js';
import type { WeightStorage } from '../../layers/storage.js';
import type { NetworkWeights } from '../network_weights.js';
import { hiddenOf, type LayerState } from '../recurrent_lm.js';
import type { StateAccess } from './program_states.js';
import { type Pack, traced } from './program_weights.js';

/** One token per row; rows whose mask is 0 keep their state. */
export type Advance = (
  vars: Record<string, tf.Tensor>,
  tokens: tf.Tensor,
  mask?: tf.Tensor,
) => Pieces<{ states: LayerState[]; logits: tf.Tensor2D }>;

/** The step of b rows whose states are read so. @param mergeStep see MixerOptions.mergeStep */
export function stepOf(
  weights: NetworkWeights,
  storages: ReadonlyMap<string, WeightStorage>,
  pack: Pack,
  b: number,
  access: StateAccess,
  { mergeStep }: { readonly mergeStep?: boolean },
): Advance {
  const { network } = weights;
  return function* (vars, tokens, mask) {
    const w = traced(storages, pack, vars);
    const embedded = network.embed(w, tf.reshape(tokens, [b, 1]));
    const { h, states, handover } = yield* hiddenOf(network, w, embedded, {
      states: access.read(vars),
      mask: mask ? (tf.reshape(mask, [b, 1]) as tf.Tensor2D) : undefined,
      mergeStep,
      between: outlineBorder,
      withoutNorm: true,
    });
    return { states, logits: network.normedHead(w, tf.reshape(h, [b, -1]) as tf.Tensor2D, handover) };
  };
}
