/** Decoding op by op on any tfjs backend: the engine of tests, browsers and machines without native TensorFlow. */
import * as tf from '@tensorflow/tfjs';
import { ArgumentError, DisposedError, GenerationError } from '../base/errors.js';
import { checkIds } from '../generation/ids.js';
import type { EngineState, GenerationEngine, StateArrays } from '../generation/engine.js';
import type { NetworkWeights } from './network_weights.js';
import { checkStateArrays, stateTensors } from './states/arrays.js';
import { RecurrentCache, type StatesOf, statesFromArrays, zeroStates } from './states/cache.js';

/** Tokens per prefill call: bounds memory, and gives an abort a place to act. */
const SEGMENT = 512;

/** State of a batch: the cache, and the logits after each row's last token on the host. */
export class EagerState implements EngineState {
  private disposed = false;
  seen: number[];

  constructor(
    private readonly network: StatesOf,
    private readonly owned: RecurrentCache,
    public rows: (Float32Array | null)[],
    seen?: readonly number[],
  ) {
    this.seen = seen ? [...seen] : new Array<number>(owned.batch).fill(0);
  }

  get cache(): RecurrentCache {
    if (this.disposed) throw new DisposedError('This generation state was disposed');
    return this.owned;
  }

  get batch(): number {
    return this.cache.batch;
  }

  async clone(): Promise<EagerState> {
    return new EagerState(this.network, this.cache.clone(), [...this.rows], this.seen);
  }

  async select(rows: readonly number[]): Promise<EagerState> {
    const pick = <T>(from: readonly T[]): T[] => rows.map((row) => from[row]!);
    return new EagerState(this.network, this.cache.select(rows), pick(this.rows), pick(this.seen));
  }

  async toArrays(): Promise<StateArrays> {
    const tensors = stateTensors(this.network, this.batch);
    const { layers } = await this.cache.toArrays();
    layers.forEach((layer, i) => {
      for (const [name, values] of Object.entries(layer)) tensors[`layers.${i}.${name}`]!.data.set(values);
    });
    this.rows.forEach((row, i) => row && tensors['logits']!.data.set(row, i * row.length));
    return { seen: [...this.seen], fed: this.rows.map((row) => row !== null), tensors };
  }

  dispose(): void {
    if (!this.disposed) this.owned.dispose();
    this.disposed = true;
  }
}

/**
 * GenerationEngine over the layers' own variables.
 * @example
 * const engine = new EagerEngine(weights);
 * const state = await engine.createState(1);
 * await engine.prefill(state, [Int32Array.of(1, 2, 3)]);
 * const [logits] = await engine.logits(state);
 */
export class EagerEngine implements GenerationEngine {
  readonly kind = 'eager';

  constructor(private readonly weights: NetworkWeights) {}

  get vocab_size(): number {
    return this.weights.network.config.vocab_size;
  }

  async createState(batch: number): Promise<EagerState> {
    if (!Number.isInteger(batch) || batch < 1)
      throw new ArgumentError(`state: batch is ${batch}, expected a positive integer`, { batch });
    const { network } = this.weights;
    return new EagerState(network, new RecurrentCache(zeroStates(network, batch)), new Array<null>(batch).fill(null));
  }

  async fromArrays(arrays: StateArrays): Promise<EagerState> {
    const { network } = this.weights;
    const { tensors, seen, fed } = arrays;
    const batch = checkStateArrays(network, arrays);
    const seen_tokens = Math.max(...seen);
    const names = network.stateSpecs().map(({ name }) => name);
    const layers = Array.from({ length: network.config.num_hidden_layers }, (_, i) =>
      Object.fromEntries(names.map((name) => [name, tensors[`layers.${i}.${name}`]!.data])),
    );
    const cache = new RecurrentCache(statesFromArrays(network, { batch, seen_tokens, layers }));
    cache.seen_tokens = seen_tokens;
    const v = this.vocab_size;
    const rows = fed.map((has, i) => (has ? tensors['logits']!.data.slice(i * v, (i + 1) * v) : null));
    return new EagerState(network, cache, rows, seen);
  }

  async prefill(
    state: EngineState,
    rows: readonly Int32Array[],
    options: { signal?: AbortSignal; on_progress?: (done: number, total: number) => void } = {},
  ): Promise<void> {
    const own = this.own(state, rows.length);
    const longest = Math.max(...rows.map((row) => row.length));
    rows.forEach((row, i) => checkIds(row, i, this.vocab_size, 'prefill'));
    for (let begin = 0; begin < longest; begin += SEGMENT) {
      options.signal?.throwIfAborted();
      await this.feed(
        own,
        rows.map((row) => row.subarray(Math.min(begin, row.length), begin + SEGMENT)),
      );
      options.on_progress?.(Math.min(begin + SEGMENT, longest), longest);
    }
  }

  async step(state: EngineState, tokens: Int32Array): Promise<void> {
    const own = this.own(state, tokens.length);
    tokens.forEach((token, i) => checkIds([token], i, this.vocab_size, 'step'));
    await this.feed(
      own,
      Array.from(tokens, (token) => Int32Array.of(token)),
    );
  }

  async logits(state: EngineState): Promise<Float32Array[]> {
    return this.own(state, state.batch).rows.map((row, i) => {
      if (!row)
        throw new GenerationError(`logits: row ${i} has none: it was fed no token yet. Feed it at least one.`, {
          row: i,
        });
      return row.slice();
    });
  }

  /** One segment: rows are padded on the right, which changes nothing; the head runs only where a row got its last token. */
  private async feed(state: EagerState, rows: readonly Int32Array[]): Promise<void> {
    const { network } = this.weights;
    const weights = this.weights.all();
    const [b, t] = [rows.length, Math.max(...rows.map((row) => row.length))];
    const live = rows.flatMap((row, i) => (row.length ? [i] : []));
    const ids = new Int32Array(b * t);
    const mask = new Float32Array(b * t);
    rows.forEach((row, i) => {
      ids.set(row, i * t);
      mask.fill(1, i * t, i * t + row.length);
    });
    const out = tf.tidy(() => {
      const embedded = network.embed(weights, tf.tensor2d(ids, [b, t], 'int32'));
      const even = rows.every((row) => row.length === t);
      const { h, states } = network.hidden(weights, embedded, {
        states: state.cache.layers.map((values) => ({ values })),
        mask: even ? undefined : tf.tensor2d(mask, [b, t]),
      });
      const last = tf.tensor1d(
        live.map((i) => i * t + rows[i]!.length - 1),
        'int32',
      );
      const ends = tf.gather(tf.reshape(h, [b * t, h.shape[2]]), last); // [live, d]
      return { states: states.map(({ values }) => ({ ...values })), logits: network.head(weights, ends) };
    });
    state.cache.advance(out.states, t);
    const flat = await out.logits.data<'float32'>();
    out.logits.dispose();
    const v = this.vocab_size;
    live.forEach((row, i) => (state.rows[row] = flat.slice(i * v, (i + 1) * v)));
    rows.forEach((row, i) => (state.seen[i]! += row.length));
  }

  private own(state: EngineState, rows: number): EagerState {
    if (!(state instanceof EagerState)) throw new ArgumentError('This state belongs to another engine', { state });
    if (state.batch !== rows)
      throw new ArgumentError(`The state has ${state.batch} rows, got ${rows}`, { state: state.batch, got: rows });
    return state;
  }
}
