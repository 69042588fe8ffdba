/** Decoding op by op on any tfjs backend: the engine of tests, browsers and machines without native TensorFlow. */
import { checkMemory } from '../base/memory.js';
import { FEWER_ROWS, logitsBytes, stateBytes } from './memory.js';
import { letOthersRun } from '../base/async.js';
import { inPieces } from '../base/pieces.js';
import * as tf from '@tensorflow/tfjs';
import { ArgumentError, GenerationError } from '../base/errors.js';
import { checkIds } from '../generation/ids.js';
import type {
  EngineSampling,
  EngineState,
  GenerationEngine,
  PrefillReading,
  StateArrays,
  StateFiles,
} from '../generation/engine.js';
import { noChoice } from '../generation/scores.js';
import { choosesOnDevice, DEVICE_BLOCK, DeviceSlot, noneDecoded } from './device_slot.js';
import type { Weights } from '../layers/weights.js';
import type { NetworkWeights } from './network_weights.js';
import { handOutRows } from './hidden_rows.js';
import { checkStateArrays } from './states/arrays.js';
import { RecurrentCache, statesFromArrays, zeroStates } from './states/cache.js';
import { EagerState } from './states/eager_state.js';
import { stateFiles } from './states/file.js';

/** Tokens per prefill call: bounds memory, and gives an abort a place to act. */
const SEGMENT = 512;

/** The same where a slot reads them: text by text, which a core may take seconds for. */
const SLOT_SEGMENT = 128;

/** Milliseconds of work after which others may run, between two layers. In a page, to let them costs some milliseconds itself. */
const ALONE = 25;

/** What the weights at one version have on a device. */
interface Prepared {
  readonly version: number;
  readonly backend: string;
  /** By their number of rows; null where there are no steps for so many. */
  readonly slots: Map<number, DeviceSlot | null>;
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
  private prepared: Prepared | null = null;
  /** Whether rows are moved on in a slot right now. */
  private inSlot = false;

  /** @param packs whether the matrices of a bfloat16 checkpoint may stay as they are in memory, where the backend has kernels for it: values are the same */
  constructor(
    private readonly weights: NetworkWeights,
    private readonly packs = true,
  ) {
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

  private running(): Weights {
    return this.packs ? this.weights.running() : this.weights.all();
  }

  /** Where so many rows are decoded by steps that a device has prepared; null where there are none. */
  private slotOf(rows: number): DeviceSlot | null {
    const { weights } = this;
    const { version } = weights;
    const backend = tf.getBackend();
    // what was prepared from other weights goes when nobody is in the middle of it
    const { prepared } = this;
    if (prepared && !this.inSlot && (prepared.version !== version || prepared.backend !== backend)) this.dispose();
    const { slots } = (this.prepared ??= { version, backend, slots: new Map<number, DeviceSlot | null>() });
    const found = slots.get(rows);
    if (found !== undefined) return found;
    // one row's are kept beside those of one other number, since each has states of its own
    for (const [other, slot] of this.inSlot ? [] : slots) {
      if (other === 1 || rows === 1) continue;
      slot?.dispose();
      slots.delete(other);
    }
    const steps = weights.network.deviceSteps?.(this.running(), rows);
    const made = steps ? new DeviceSlot(steps, rows) : null;
    slots.set(rows, made);
    return made;
  }

  /** Dispatches of a token where a GPU has prepared steps; else null. */
  get dispatches(): number | null {
    return this.slotOf(1)?.dispatches ?? null;
  }

  /** Several tokens at a time where a device chooses them. */
  get preferred_block(): number {
    return this.slotOf(1)?.chooses ? DEVICE_BLOCK : 1;
  }

  canSample(sampling: EngineSampling, rows: number): boolean {
    return choosesOnDevice(sampling) && this.slotOf(rows)?.chooses === true;
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
    return this.own(state, rows.length).turns.take(() => this.told(() => this.read(state, rows, options)));
  }

  private async read(state: EngineState, rows: readonly Int32Array[], options: PrefillReading): Promise<void> {
    const own = this.own(state, rows.length);
    const longest = Math.max(...rows.map((row) => row.length));
    rows.forEach((row, i) => checkIds(row, i, this.vocab_size, 'prefill'));
    const { on_hidden } = options;
    const inSlot = !on_hidden && this.slotOf(rows.length)?.reads === true;
    const size = inSlot ? SLOT_SEGMENT : SEGMENT;
    for (let begin = 0; begin < longest; begin += size) {
      options.signal?.throwIfAborted();
      const segment = rows.map((row) => row.subarray(Math.min(begin, row.length), begin + size));
      const take = on_hidden && ((row: number, hidden: Float32Array, count: number) => on_hidden(row, hidden, begin, count)); // prettier-ignore
      if (!inSlot || !(await this.readInSlot(own, segment))) await this.feed(own, segment, take);
      await options.on_progress?.(Math.min(begin + size, longest), longest);
      if (begin + size < longest) await letOthersRun();
    }
  }

  private readInSlot(own: EagerState, texts: readonly Int32Array[]): Promise<boolean> {
    return this.onDevice(own, async (slot) => {
      await slot.read(own, texts);
      return texts.map((ids) => ids.length);
    });
  }

  async step(state: EngineState, tokens: Int32Array): Promise<void> {
    const own = this.own(state, tokens.length);
    tokens.forEach((token, i) => checkIds([token], i, this.vocab_size, 'step'));
    const feed = async (): Promise<void> => {
      if (await this.onDevice(own, async (slot) => (slot.feed(own, tokens), own.seen.map(() => 1)))) return;
      await this.feed(
        own,
        Array.from(tokens, (token) => Int32Array.of(token)),
      );
    };
    await own.turns.take(() => this.told(feed));
  }

  /**
   * Moves the rows on in their slot, where there is one, and which reads prompts unless they were fed before.
   * @param work feeds them tokens, and says how many to each
   */
  private async onDevice(own: EagerState, work: (slot: DeviceSlot) => Promise<readonly number[]>): Promise<boolean> {
    return this.weights.turns.take(async () => {
      const slot = this.slotOf(own.batch);
      // scores come to the host before the rows go elsewhere
      const fed = slot?.has(own) || (await own.scores()).every((row) => row !== null) || slot?.reads;
      if (!slot || !fed) return false;
      await slot.ready;
      this.inSlot = true;
      try {
        own.fedIn(await work(slot));
      } finally {
        this.inSlot = false;
      }
      return true;
    });
  }

  async decode(
    state: EngineState,
    count: number,
    sampling: EngineSampling,
    _history: readonly Int32Array[],
    uniforms?: readonly Float32Array[],
    finished?: readonly boolean[],
  ): Promise<Int32Array[]> {
    const { batch } = state;
    const own = this.own(state, batch);
    if (!this.canSample(sampling, batch))
      throw new ArgumentError('decode: these settings are not chosen by on this device; use step()', { sampling });
    if (sampling.do_sample && (uniforms?.length !== batch || uniforms.some((numbers) => numbers.length < count)))
      throw new ArgumentError(`decode: expected ${count} uniform numbers for each row`, {});
    return own.turns.take(async () => {
      let out = noneDecoded(batch, count, sampling.pad_token_id);
      if (out.ids.every((_, row) => finished?.[row])) return [...out.ids];
      const moved = await this.onDevice(own, async (slot) => {
        out = await slot.decode(own, count, sampling, uniforms, finished);
        return out.fed;
      });
      if (!moved) throw neverFed((await own.scores()).findIndex((row) => row === null));
      if (out.failed) throw noChoice(out.failed.why === 'invalid', out.failed.row, own.seen[out.failed.row]!);
      return [...out.ids];
    });
  }

  async logits(state: EngineState): Promise<Float32Array[]> {
    const own = this.own(state, state.batch);
    const scores = await own.turns.take(() => this.told(() => own.scores()));
    return scores.map((row, i) => {
      if (!row) throw neverFed(i);
      return row.slice();
    });
  }

  /** Where a device is gone, what fails for that fails for another reason, which says nothing. @throws DeviceError in its place */
  private async told<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      for (const slot of this.prepared?.slots.values() ?? []) slot?.check();
      throw error;
    }
  }

  /** One segment: rows are padded on the right, which changes nothing; the head runs only where a row got its last token. */
  private async feed(
    state: EagerState,
    rows: readonly Int32Array[],
    take?: (row: number, hidden: Float32Array, count: number) => void,
  ): Promise<void> {
    const t = Math.max(...rows.map((row) => row.length));
    const live = rows.flatMap((row, i) => (row.length ? [i] : []));
    await state.scores(); // those of a device come to the host, before the cache comes back
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
    live.forEach((row, i) => state.setScores(row, flat.slice(i * v, (i + 1) * v)));
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
    const weights = this.running();
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
        const all = this.running(); // throws where the model was disposed of meanwhile, as the cache does
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
        return network.head(this.running(), ends);
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

  /** Gives back what steps have on a device. States stay, and what they had there comes back to them. */
  dispose(): void {
    for (const slot of this.prepared?.slots.values() ?? []) slot?.dispose();
    this.prepared = null;
  }

  private own(state: EngineState, rows: number): EagerState {
    if (!(state instanceof EagerState)) throw new ArgumentError('This state belongs to another engine', { state });
    if (state.batch !== rows)
      throw new ArgumentError(`The state has ${state.batch} rows, got ${rows}`, { state: state.batch, got: rows });
    return state;
  }
}

const neverFed = (row: number): GenerationError =>
  new GenerationError(`logits: row ${row} has none: it was fed no token yet. Feed it at least one.`, { row });
