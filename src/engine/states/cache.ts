/** The states of a batch as tensors, layer by layer: what eager runs carry from call to call. */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError, DisposedError } from '../../base/errors.js';
import type { Pieces } from '../../base/pieces.js';
import type { RecurrentLM } from '../recurrent_lm.js';

/** The states of one layer by name, [b, ...shape]. */
export type LayerTensors = Record<string, tf.Tensor>;

/** A cache as plain arrays, for saving. */
export interface CacheArrays<Name extends string = string> {
  batch: number;
  seen_tokens: number;
  /** Of each layer its states by name, row-major. */
  layers: Record<Name, Float32Array>[];
}

/** The part of a network that says what its states are. */
export type StatesOf = Pick<RecurrentLM, 'config' | 'stateSpecs'>;

/** Shapes of one layer's states for a batch, by name. */
function shapesOf(network: StatesOf, batch: number): [string, number[]][] {
  return network.stateSpecs().map(({ name, shape }) => [name, [batch, ...shape]]);
}

/** States of zeros: a text that has not begun. */
export function zeroStates(network: StatesOf, batch: number): LayerTensors[] {
  const shapes = shapesOf(network, batch);
  return Array.from({ length: network.config.num_hidden_layers }, () =>
    Object.fromEntries(shapes.map(([name, shape]) => [name, tf.zeros(shape)])),
  );
}

/** @throws ArgumentError when the arrays do not have this model's sizes */
export function* statesFromArrays(network: StatesOf, { batch, layers }: CacheArrays): Pieces<LayerTensors[]> {
  const { num_hidden_layers: count } = network.config;
  const shapes = shapesOf(network, batch);
  if (layers.length !== count) {
    throw new ArgumentError(`state: has ${layers.length} layers, the model has ${count}`, {});
  }
  layers.forEach((layer, i) => {
    for (const [name, shape] of shapes) {
      if (layer[name]!.length !== tf.util.sizeFromShape(shape)) {
        throw new ArgumentError(`state: layer ${i} ${name} has ${layer[name]!.length} values, expected [${shape}]`, {
          layer: i,
        });
      }
    }
  });
  const made: LayerTensors[] = [];
  for (const layer of layers) {
    yield;
    made.push(
      Object.fromEntries(shapes.map(([name, shape]) => [name, tf.tensor(layer[name]!.slice(), shape, 'float32')])),
    );
  }
  return made;
}

const mapStates = <L extends LayerTensors>(layer: L, change: (state: tf.Tensor) => tf.Tensor): L =>
  Object.fromEntries(Object.entries(layer).map(([name, state]) => [name, change(state)])) as L;

/** `forward` advances a cache in place; it never grows. Owns its tensors: dispose it. */
export class RecurrentCache<L extends LayerTensors = LayerTensors> {
  private disposed = false;
  /** Positions fed so far, padding included. */
  seen_tokens = 0;

  /** @param states of each layer, which become the cache's; none for a cache to be filled by advance() */
  constructor(private states: L[] = []) {}

  get layers(): readonly L[] {
    if (this.disposed) throw new DisposedError('This cache was disposed');
    return this.states;
  }

  get batch(): number {
    return Object.values(this.layers[0]!)[0]!.shape[0];
  }

  /** @throws ArgumentError when it is not one of such a model and `batch` rows */
  check(network: StatesOf, batch: number): void {
    const { layers } = this;
    const { num_hidden_layers: count } = network.config;
    if (layers.length !== count) {
      throw new ArgumentError(`forward: the cache has ${layers.length} layers, the model has ${count}`, {
        cache: layers.length,
        model: count,
      });
    }
    if (this.batch !== batch)
      throw new ArgumentError(`forward: the cache holds ${this.batch} rows, the input ${batch}`, {
        cache: this.batch,
        input: batch,
      });
    const shapes = shapesOf(network, batch);
    layers.forEach((layer, i) => {
      for (const [name, shape] of shapes) {
        const got = layer[name]?.shape;
        if (got?.join() !== shape.join()) {
          throw new ArgumentError(
            `forward: layer ${i} of the cache has ${name} [${got ?? 'missing'}], the model expects [${shape}]`,
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
  advance(states: readonly LayerTensors[], count: number): void {
    const old = this.layers;
    if (old.length > 0) for (const layer of states) Object.values(layer).forEach((state) => tf.keep(state));
    this.states = [...states] as L[];
    this.seen_tokens += count;
    for (const layer of old) tf.dispose(layer);
  }

  /** Another of the same class and age. */
  private alike(states: L[]): this {
    const cache = new (this.constructor as new (states: L[]) => this)(states);
    cache.seen_tokens = this.seen_tokens;
    return cache;
  }

  clone(): this {
    return this.alike(this.layers.map((layer) => mapStates(layer, (state) => tf.clone(state))));
  }

  /** A new cache whose row i is row rows[i] of this one; rows may repeat (beams, samples). */
  select(rows: readonly number[]): this {
    const bad = rows.find((row) => !Number.isInteger(row) || row < 0 || row >= this.batch);
    if (bad !== undefined || rows.length === 0) {
      throw new ArgumentError(`state: cannot select rows [${rows}] of a batch of ${this.batch}`, {
        rows,
        batch: this.batch,
      });
    }
    const chosen = tf.tidy(() => {
      const index = tf.tensor1d([...rows], 'int32');
      return this.layers.map((layer) => mapStates(layer, (state) => tf.keep(tf.gather(state, index))));
    });
    return this.alike(chosen);
  }

  /** Back to zeros. */
  reset(): void {
    this.advance(
      this.layers.map((layer) => mapStates(layer, (state) => tf.zerosLike(state))),
      0,
    );
    this.seen_tokens = 0;
  }

  async toArrays(): Promise<CacheArrays<keyof L & string>> {
    const layers: Record<keyof L & string, Float32Array>[] = [];
    for (const layer of this.layers) {
      const arrays: Record<string, Float32Array> = {};
      for (const [name, state] of Object.entries(layer)) arrays[name] = (await state.data<'float32'>()).slice();
      layers.push(arrays);
    }
    return { batch: this.batch, seen_tokens: this.seen_tokens, layers };
  }

  dispose(): void {
    if (this.disposed) return;
    for (const layer of this.states) tf.dispose(layer);
    this.disposed = true;
  }
}
