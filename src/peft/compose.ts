/** Base and adapters put together: the weights of a network as pure functions of tensors, so that a compiled program has its own. */
import type * as tf from '@tensorflow/tfjs';
import type { RecurrentLM } from '../engine/recurrent_lm.js';
import type { Weight, Weights } from '../layers/index.js';
import type { LoraAdapter } from './adapter.js';
import { type DropoutSeed, loraMatrix, type LowRank, storableLoraMatrix, tiedPair } from './matrix.js';

/** An adapter, and what its variables' keys begin with among those of several. */
export interface PrefixedAdapter {
  prefix: string;
  adapter: LoraAdapter;
}

/**
 * All weights of the network.
 * @param adapters those that act; several add up @param trainable their tensors by prefix and key @param frozen the base's weights
 * @param seed for dropout, int32 [2]
 */
export function composeWeights(
  { config, names }: RecurrentLM,
  adapters: readonly PrefixedAdapter[],
  trainable: Readonly<Record<string, tf.Tensor>>,
  frozen: Weights,
  seed?: tf.Tensor1D,
): Weights {
  const weights: Record<string, Weight> = { ...frozen };
  const factors = new Map<string, { linear: LowRank[]; embedding: LowRank[] }>();
  for (const { prefix, adapter } of adapters) {
    const own = Object.fromEntries([...adapter.variables.keys()].map((key) => [key, trainable[prefix + key]!]));
    // as in PEFT, an embedding that is trained whole is the lookup's: a tied head keeps the base's matrix, or has one of its own
    const apart = config.tie_word_embeddings && !adapter.stays_tied;
    for (const key of adapter.saved)
      if (!(apart && (key === names.embedding || key === names.head))) weights[key] = own[key]!;
    const [rows, head] = [own[names.embedding], own[names.head]] as (tf.Tensor2D | undefined)[];
    if (apart && (rows ?? head)) {
      const base = frozen[names.embedding]!;
      weights[names.embedding] = tiedPair(rows ?? base, head ?? base);
    }
    for (const at of adapter.modules) {
      const of = factors.get(at.weight) ?? { linear: [], embedding: [] };
      of[at.kind === 'embedding' ? 'embedding' : 'linear'].push(adapter.lowRank(at, own));
      factors.set(at.weight, of);
    }
  }
  let index = 0;
  for (const [name, matrixAdapters] of factors) {
    const random: DropoutSeed | undefined = seed && { seed, index: index++ };
    // without a seed it may also be put into a compiled decoding program
    weights[name] = random
      ? loraMatrix(weights[name]!, matrixAdapters, random)
      : storableLoraMatrix(weights[name]!, matrixAdapters);
  }
  return weights;
}
