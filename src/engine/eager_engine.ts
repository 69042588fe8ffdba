/** Decoding op by op on any tfjs backend: the engine of tests, browsers and machines without native TensorFlow. */
import { checkMemory } from '../base/memory.js';
import { FEWER_ROWS, logitsBytes, stateBytes } from './memory.js';
import { letOthersRun } from '../base/async.js';
import { inPieces } from '../base/pieces.js';
import { Turns } from '../base/turns.js';
import * as tf from '@tensorflow/tfjs';
import { ArgumentError, DisposedError, GenerationError } from '../base/errors.js';
import { checkIds } from '../generation/ids.js';
import type { EngineState, GenerationEngine, PrefillReading, StateArrays, StateFiles } from '../generation/engine.js';
import type { NetworkWeights } from './network_weights.js';
import { handOutRows } from './hidden_rows.js';
import { checkStateArrays, stateTensors } from './states/arrays.js';
import { RecurrentCache, type StatesOf, statesFromArrays, zeroStates } from './states/cache.js';
import { stateFiles } from './states/file.js';

/** Tokens per prefill call: bounds memory, and gives an abort a place to act. */
const SEGMENT = 512;

/** Milliseconds of work after which others may run, between two layers. In a page, to let them costs some milliseconds itself. */
const ALONE = 25;

/** State of a batch: the cache, and the logits after each row's last token on the host. */
export class EagerState implements EngineState {
  private disposed = false;
  seen: number[];
  /** Others may run within a call: calls on one state follow one another. */
  readonly turns = new Turns();

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
    return this.turns.take(() => new EagerState(this.network, this.cache.clone(), [...this.rows], this.seen));
  }

  async select(rows: readonly number[]): Promise<EagerState> {
    checkMemory(rows.length * stateBytes(this.network), `A state of ${rows.length} rows`, FEWER_ROWS);
    const pick = <T>(from: readonly T[]): T[] => rows.map((row) => from[row]!);
    return this.turns.take(
      () => new EagerState(this.network, this.cache.select(rows), pick(this.rows), pick(this.seen)),
    );
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

  readonly state_files: StateFiles;

  constructor(private readonly weights: NetworkWeights) {
    this.state_files = stateFiles(weights);
  }

  get vocab_size(): number {
    return this.weights.network.config.vocab_size;
  }

  /** States before and after a token, and logits as a tensor and as arrays. */
  memoryFor(rows: number): number {
    const { network } = this.weights;
    return rows * (2 * stateBytes(network) + 2 * logitsBytes(network));
  }

  async createState(batch: number): Promise<EagerState> {
    if (!Number.isInteger(batch) || batch < 1)
      throw new ArgumentError(`state: batch is ${batch}, expected a positive integer`, { batch });
    const { network } = this.weights;
    checkMemory(batch * stateBytes(network), `A state of ${batch} rows`, FEWER_ROWS);
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
    const states = await inPieces(statesFromArrays(network, { batch, seen_tokens, layers }), {
      keeps: (made) => made.flatMap((layer) => Object.values(layer)),
    });
    const cache = new RecurrentCache(states);
    cache.seen_tokens = seen_tokens;
    const v = this.vocab_size;
    const rows = fed.map((has, i) => (has ? tensors['logits']!.data.slice(i * v, (i + 1) * v) : null));
    return new EagerState(network, cache, rows, seen);
  }

  async prefill(state: EngineState, rows: readonly Int32Array[], options: PrefillReading = {}): Promise<void> {
    return this.own(state, rows.length).turns.take(() => this.read(state, rows, options));
  }

  private async read(state: EngineState, rows: readonly Int32Array[], options: PrefillReading): Promise<void> {
    const own = this.own(state, rows.length);
    const longest = Math.max(...rows.map((row) => row.length));
    rows.forEach((row, i) => checkIds(row, i, this.vocab_size, 'prefill'));
    for (let begin = 0; begin < longest; begin += SEGMENT) {
      options.signal?.throwIfAborted();
      await this.feed(
        own,
        rows.map((row) => row.subarray(Math.min(begin, row.length), begin + SEGMENT)),
        options.on_hidden && ((row, hidden, count) => options.on_hidden!(row, hidden, begin, count)),
      );
      await options.on_progress?.(Math.min(begin + SEGMENT, longest), longest);
      if (begin + SEGMENT < longest) await letOthersRun();
    }
  }

  async step(state: EngineState, tokens: Int32Array): Promise<void> {
    const own = this.own(state, tokens.length);
    tokens.forEach((token, i) => checkIds([token], i, this.vocab_size, 'step'));
    await own.turns.take(() =>
      this.feed(
        own,
        Array.from(tokens, (token) => Int32Array.of(token)),
      ),
    );
  }

  async logits(state: EngineState): Promise<Float32Array[]> {
    const own = this.own(state, state.batch);
    return own.turns.take(() =>
      own.rows.map((row, i) => {
        if (!row)
          throw new GenerationError(`logits: row ${i} has none: it was fed no token yet. Feed it at least one.`, {
            row: i,
          });
        return row.slice();
      }),
    );
  }

  /** One segment: rows are padded on the right, which changes nothing; the head runs only where a row got its last token. */
  private async feed(
    state: EagerState,
    rows: readonly Int32Array[],
    take?: (row: number, hidden: Float32Array, count: number) => void,
  ): Promise<void> {
    const t = Math.max(...rows.map((row) => row.length));
    const live = rows.flatMap((row, i) => (row.length ? [i] : []));
    const { h, logits } = await this.weights.turns.take(() => this.advance(state, rows, live, take !== undefined));
    if (take && h) {
      const hidden = await h.data<'float32'>();
      h.dispose();
      handOutRows(
        hidden,
        rows.map((row) => row.length),
        t,
        take,
      );
    }
    const flat = await logits.data<'float32'>();
    logits.dispose();
    const v = this.vocab_size;
    live.forEach((row, i) => (state.rows[row] = flat.slice(i * v, (i + 1) * v)));
    rows.forEach((row, i) => (state.seen[i]! += row.length));
  }

  /** Moves the cache on, layer by layer, between which others run: but none of them changes the weights. @param live rows with a token */
  private async advance(
    state: EagerState,
    rows: readonly Int32Array[],
    live: readonly number[],
    keepHidden: boolean,
  ): Promise<{ h: tf.Tensor3D | null; logits: tf.Tensor }> {
    const { network } = this.weights;
    const weights = this.weights.all();
    const [b, t] = [rows.length, Math.max(...rows.map((row) => row.length))];
    const ids = new Int32Array(b * t);
    const mask = new Float32Array(b * t);
    rows.forEach((row, i) => {
      ids.set(row, i * t);
      mask.fill(1, i * t, i * t + row.length);
    });
    const even = rows.every((row) => row.length === t);
    const masked = even ? undefined : tf.tensor2d(mask, [b, t]);
    const states: Record<string, tf.Tensor>[] = [];
    let h = tf.tidy(() => network.embed(weights, tf.tensor2d(ids, [b, t], 'int32')));
    let logits: tf.Tensor;
    try {
      let since = performance.now();
      for (let i = 0; i < network.config.num_hidden_layers; i++) {
        const all = this.weights.all(); // throws where the model was disposed of meanwhile, as the cache does
        const out = tf.tidy(() => {
          const run = network.hidden(all, h, {
            states: state.cache.layers.map((values) => ({ values })),
            mask: masked,
            layers: [i, i + 1],
          });
          return { h: run.h, states: { ...run.states[0]!.values } };
        });
        h.dispose();
        h = out.h;
        states.push(out.states);
        if (performance.now() - since < ALONE) continue;
        await letOthersRun();
        since = performance.now();
        void state.cache;
      }
      logits = tf.tidy(() => {
        const last = tf.tensor1d(
          live.map((i) => i * t + rows[i]!.length - 1),
          'int32',
        );
        const ends = tf.gather(tf.reshape(h, [b * t, h.shape[2]]), last); // [live, d]
        return network.head(this.weights.all(), ends);
      });
    } catch (error) {
      tf.dispose([h, states]);
      throw error;
    } finally {
      masked?.dispose();
    }
    if (!keepHidden) h.dispose();
    state.cache.advance(states, t);
    return { h: keepHidden ? h : null, logits };
  }

  private own(state: EngineState, rows: number): EagerState {
    if (!(state instanceof EagerState)) throw new ArgumentError('This state belongs to another engine', { state });
    if (state.batch !== rows)
      throw new ArgumentError(`The state has ${state.batch} rows, got ${rows}`, { state: state.batch, got: rows });
    return state;
  }
}
