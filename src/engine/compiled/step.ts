/** One token of each row through the model, over the variables of a program. Traced code only. */
import * as tf from '@tensorflow/tfjs';
import type { Pieces } from '../../base/pieces.js';
import { outlineBorder } from '../../jit/index.js';
import { hiddenOf, type LayerState } from '../recurrent_lm.js';
import type { DecodingProgramOptions, ProgramModel } from './decoding_program.js';
import type { StateAccess } from './program_states.js';
import { traced } from './program_weights.js';

/** One token per row; rows whose mask is 0 keep their state. */
export type Advance = (
  vars: Record<string, tf.Tensor>,
  tokens: tf.Tensor,
  mask?: tf.Tensor,
) => Pieces<{ states: LayerState[]; logits: tf.Tensor2D }>;

/** The step of b rows whose states are read so. @param mergeStep see MixerOptions.mergeStep @param sums see DecodingProgramOptions */
export function stepOf(
  { network, storages, pack }: Pick<ProgramModel, 'network' | 'storages' | 'pack'>,
  b: number,
  access: StateAccess,
  { mergeStep, sums }: Pick<DecodingProgramOptions, 'mergeStep' | 'sums'>,
): Advance {
  return function* (vars, tokens, mask) {
    const w = traced(storages, pack, vars);
    const embedded = network.embed(w, tf.reshape(tokens, [b, 1]));
    const { h, states, handover } = yield* hiddenOf(network, w, embedded, {
      states: access.read(vars),
      mask: mask ? (tf.reshape(mask, [b, 1]) as tf.Tensor2D) : undefined,
      mergeStep,
      // what XLA adds up with other devices must be of one function: it numbers sums in each
      ...(sums !== 'inside' && { between: outlineBorder }),
      withoutNorm: true,
    });
    return { states, logits: network.normedHead(w, tf.reshape(h, [b, -1]) as tf.Tensor2D, handover) };
  };
}
