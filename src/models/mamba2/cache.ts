/** Mamba2Cache: the fixed-size state of a batch, layer by layer (spec B.6). */
import type * as tf from '@tensorflow/tfjs';
import { atOnce } from '../../base/pieces.js';
import {
  type CacheArrays as ArraysOf,
  RecurrentCache,
  type StatesOf,
  statesFromArrays,
  zeroStates,
} from '../../engine/states/cache.js';
import type { StateSpec } from '../../engine/recurrent_lm.js';
import type { Mamba2Config } from './config.js';

/** A cache as plain arrays, for saving. conv [b, k-1, convSize], ssm [b, h, p, n], most recent token last. */
export type CacheArrays = ArraysOf<'conv' | 'ssm'>;

/** Shapes of one layer's states for a batch. */
export function stateShapes(
  config: Mamba2Config,
  batch: number,
): { conv: [number, number, number]; ssm: [number, number, number, number] } {
  const convSize = config.inner_size + 2 * config.n_groups * config.state_size;
  return {
    conv: [batch, config.conv_kernel - 1, convSize],
    ssm: [batch, config.num_heads, config.head_dim, config.state_size],
  };
}

/** What each layer carries: the last k-1 inputs of its convolution, and its recurrent state. */
export function stateSpecs(config: Mamba2Config): StateSpec[] {
  const { conv, ssm } = stateShapes(config, 1);
  return [
    { name: 'conv', shape: conv.slice(1), keptPer: 'model' },
    { name: 'ssm', shape: ssm.slice(1), keptPer: 'layer', bfloat16: true },
  ];
}

const statesOf = (config: Mamba2Config): StatesOf => ({ config, stateSpecs: () => stateSpecs(config) });

/** The states of one layer. */
type Mamba2States = { conv: tf.Tensor3D; ssm: tf.Tensor4D };

/**
 * Convolution contexts and recurrent states of every layer. `forward` advances a cache in place; it never grows.
 * Owns its tensors: dispose it.
 * @example
 * const first = model.forward({ input_ids: [[5, 6, 7]] });
 * const next = model.forward({ input_ids: [[8]], cache: first.cache });
 */
export class Mamba2Cache extends RecurrentCache<Mamba2States> {
  /** A cache without states yet, to be filled by advance(). */
  static empty(): Mamba2Cache {
    return new Mamba2Cache();
  }

  /** States of zeros: a text that has not begun. */
  static zeros(config: Mamba2Config, batch: number): Mamba2Cache {
    return new Mamba2Cache(zeroStates(statesOf(config), batch) as Mamba2States[]);
  }

  /** @throws ArgumentError when the arrays do not have this model's sizes */
  static fromArrays(config: Mamba2Config, arrays: CacheArrays): Mamba2Cache {
    const cache = new Mamba2Cache(atOnce(statesFromArrays(statesOf(config), arrays)) as Mamba2States[]);
    cache.seen_tokens = arrays.seen_tokens;
    return cache;
  }
}
