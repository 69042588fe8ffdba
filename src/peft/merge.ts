/** Adapters added into the weights below them: the same outputs at the plain model's speed. */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError } from '../base/errors.js';
import type { RecurrentLM } from '../engine/recurrent_lm.js';
import { isStored, type Weights } from '../layers/index.js';
import type { AdaptedModule, LoraAdapter } from './adapter.js';
import { lowRankDelta } from './matrix.js';

/** Weights that merging changes. */
export interface MergedWeights {
  /** New tensors by name, the caller's to dispose. */
  changed: Map<string, tf.Tensor>;
  /** True when a tied head must go on with a matrix of its own: adapters act on the lookup alone, as in PEFT. */
  untied: boolean;
  /** That matrix, where it is not the one from before; the caller's to dispose. */
  head: tf.Tensor | null;
}

/**
 * Weights with adapters added in.
 * @throws ArgumentError for a quantised base, and for an adapter of a tied head, which has no matrix of its own; no
 *   tensor is left then
 */
export function mergedWeights(
  { config, names }: RecurrentLM,
  base: Weights,
  adapters: readonly LoraAdapter[],
): MergedWeights {
  const changed = new Map<string, tf.Tensor>();
  const put = (name: string, value: tf.Tensor): void => {
    changed.get(name)?.dispose();
    changed.set(name, value);
  };
  try {
    // whole modules first: what other adapters add goes on top of them, as in PeftModel.compose
    for (const adapter of adapters) for (const name of adapter.saved) put(name, tf.clone(adapter.variables.get(name)!));
    refuseMixed(config.tie_word_embeddings, adapters, names.embedding);
    for (const adapter of adapters)
      for (const at of adapter.modules) put(at.weight, merged(base, changed, adapter, at, config.tie_word_embeddings));
  } catch (error) {
    tf.dispose([...changed.values()]);
    throw error;
  }
  const tied = config.tie_word_embeddings;
  const head = tied ? changed.get(names.head) : undefined;
  if (head) changed.delete(names.head);
  const stays = adapters.some(({ stays_tied }) => stays_tied);
  return {
    changed,
    untied: tied && (head !== undefined || (changed.has(names.embedding) && !stays)),
    head: head ?? null,
  };
}

/** @throws ArgumentError where one adapter changes embedding and tied head together, and another the lookup alone */
function refuseMixed(tied: boolean, adapters: readonly LoraAdapter[], embedding: string): void {
  const touching = adapters.filter(
    ({ saved, modules }) => saved.includes(embedding) || modules.some(({ weight }) => weight === embedding),
  );
  if (!tied || new Set(touching.map(({ stays_tied }) => stays_tied)).size < 2) return;
  throw new ArgumentError(
    'Cannot merge these adapters together: one changes the embedding with the head that is tied to it, another the embedding alone. Merge one of them.',
    {},
  );
}

function merged(
  base: Weights,
  changed: ReadonlyMap<string, tf.Tensor>,
  adapter: LoraAdapter,
  at: AdaptedModule,
  tied: boolean,
): tf.Tensor {
  const weight = changed.get(at.weight) ?? base[at.weight]!;
  if (isStored(weight)) {
    throw new ArgumentError(
      `Cannot merge into '${at.weight}': the base is quantised. Load it in float32, or keep the adapter beside it.`,
      { weight: at.weight },
    );
  }
  if (at.kind === 'head' && tied) {
    throw new ArgumentError(
      `Cannot merge an adapter of '${at.module}' into a tied model: head and embedding share one matrix. Keep the adapter beside it.`,
      {},
    );
  }
  const kind = at.kind === 'embedding' ? 'embedding' : 'linear';
  return tf.tidy(() => tf.add(weight, lowRankDelta(adapter.lowRank(at, Object.fromEntries(adapter.variables)), kind)));
}
