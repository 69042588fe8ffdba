/** Mamba2Cache: the fixed-size state of a batch, layer by layer (spec B.6). */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError, DisposedError } from '../../base/errors.js';
import type { MixerState } from '../../layers/mixer.js';
import type { Mamba2Config } from './config.js';

/** A cache as plain arrays, for saving. conv [b, k-1, convSize], ssm [b, h, p, n], most recent token last. */
export interface CacheArrays {
  batch: number;
  seen_tokens: number;
  layers: { conv: Float32Array; ssm: Float32Array }[];
}

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

/**
 * Convolution contexts and recurrent states of every layer. `forward` advances a cache in place; it never grows.
 * Owns its tensors: dispose it.
 * @example
 * const first = model.forward({ input_ids: [[5, 6, 7]] });
 * const next = model.forward({ input_ids: [[8]], cache: first.cache });
 */
export class Mamba2Cache {
  private disposed = false;
  /** Positions fed so far, padding included. */
  seen_tokens = 0;

  private constructor(private states: MixerState[]) {}

  /** A cache without states yet, to be filled by advance(). */
  static empty(): Mamba2Cache {
    return new Mamba2Cache([]);
  }

  /** States of zeros: a text that has not begun. */
  static zeros(config: Mamba2Config, batch: number): Mamba2Cache {
    const shapes = stateShapes(config, batch);
    return new Mamba2Cache(
      Array.from({ length: config.num_hidden_layers }, () => ({
        conv: tf.zeros(shapes.conv),
        ssm: tf.zeros(shapes.ssm),
      })),
    );
  }

  /** @throws ArgumentError when the arrays do not have this model's sizes */
  static fromArrays(config: Mamba2Config, arrays: CacheArrays): Mamba2Cache {
    const shapes = stateShapes(config, arrays.batch);
    const size = (shape: number[]): number => shape.reduce((a, b) => a * b, 1);
    if (arrays.layers.length !== config.num_hidden_layers) {
      throw new ArgumentError(
        `state: has ${arrays.layers.length} layers, the model has ${config.num_hidden_layers}`,
        {},
      );
    }
    arrays.layers.forEach((layer, i) => {
      for (const key of ['conv', 'ssm'] as const) {
        if (layer[key].length !== size(shapes[key])) {
          throw new ArgumentError(
            `state: layer ${i} ${key} has ${layer[key].length} values, expected [${shapes[key]}]`,
            { layer: i },
          );
        }
      }
    });
    const cache = new Mamba2Cache(
      arrays.layers.map(({ conv, ssm }) => ({
        conv: tf.tensor3d(conv.slice(), shapes.conv),
        ssm: tf.tensor4d(ssm.slice(), shapes.ssm),
      })),
    );
    cache.seen_tokens = arrays.seen_tokens;
    return cache;
  }

  get layers(): readonly MixerState[] {
    if (this.disposed) throw new DisposedError('This cache was disposed');
    return this.states;
  }

  get batch(): number {
    return this.layers[0]!.conv.shape[0];
  }

  /** @throws ArgumentError when it is not one of a model of these sizes and `batch` rows */
  check(config: Mamba2Config, batch: number): void {
    const { layers } = this;
    if (layers.length !== config.num_hidden_layers) {
      throw new ArgumentError(
        `forward: the cache has ${layers.length} layers, the model has ${config.num_hidden_layers}`,
        { cache: layers.length, model: config.num_hidden_layers },
      );
    }
    if (this.batch !== batch)
      throw new ArgumentError(`forward: the cache holds ${this.batch} rows, the input ${batch}`, {
        cache: this.batch,
        input: batch,
      });
    const shapes = stateShapes(config, batch);
    layers.forEach((layer, i) => {
      for (const key of ['conv', 'ssm'] as const) {
        if (layer[key].shape.join() !== shapes[key].join()) {
          throw new ArgumentError(
            `forward: layer ${i} of the cache has ${key} [${layer[key].shape}], the model expects [${shapes[key]}]`,
            { layer: i },
          );
        }
      }
    });
  }

  get has_previous_state(): boolean {
    return this.seen_tokens > 0;
  }

  /**
   * Takes over new states after `count` positions and disposes the old ones. A cache that had states outlives a tf.tidy
   * around the call; one that is new belongs to the tidy, as other outputs do.
   */
  advance(states: MixerState[], count: number): void {
    const old = this.layers;
    if (old.length > 0) for (const { conv, ssm } of states) [conv, ssm].forEach((state) => tf.keep(state));
    this.states = states;
    this.seen_tokens += count;
    for (const { conv, ssm } of old) tf.dispose([conv, ssm]);
  }

  clone(): Mamba2Cache {
    const copy = new Mamba2Cache(this.layers.map(({ conv, ssm }) => ({ conv: tf.clone(conv), ssm: tf.clone(ssm) })));
    copy.seen_tokens = this.seen_tokens;
    return copy;
  }

  /** A new cache whose row i is row rows[i] of this one; rows may repeat (beams, samples). */
  select(rows: readonly number[]): Mamba2Cache {
    const bad = rows.find((row) => !Number.isInteger(row) || row < 0 || row >= this.batch);
    if (bad !== undefined || rows.length === 0) {
      throw new ArgumentError(`state: cannot select rows [${rows}] of a batch of ${this.batch}`, {
        rows,
        batch: this.batch,
      });
    }
    const copy = tf.tidy(() => {
      const index = tf.tensor1d([...rows], 'int32');
      return this.layers.map(({ conv, ssm }) => ({
        conv: tf.keep(tf.gather(conv, index)),
        ssm: tf.keep(tf.gather(ssm, index)),
      }));
    });
    const cache = new Mamba2Cache(copy);
    cache.seen_tokens = this.seen_tokens;
    return cache;
  }

  /** Back to zeros. */
  reset(): void {
    const zeros = this.layers.map(({ conv, ssm }) => ({ conv: tf.zerosLike(conv), ssm: tf.zerosLike(ssm) }));
    this.advance(zeros, 0);
    this.seen_tokens = 0;
  }

  async toArrays(): Promise<CacheArrays> {
    const layers = [];
    for (const { conv, ssm } of this.layers) {
      layers.push({ conv: (await conv.data<'float32'>()).slice(), ssm: (await ssm.data<'float32'>()).slice() });
    }
    return { batch: this.batch, seen_tokens: this.seen_tokens, layers };
  }

  dispose(): void {
    if (this.disposed) return;
    for (const { conv, ssm } of this.states) tf.dispose([conv, ssm]);
    this.disposed = true;
  }
}
