/** The state of a batch in eager runs: tensors, or the place on a device where it is decoded. */
import { checkMemory } from '../../base/memory.js';
import { Turns } from '../../base/turns.js';
import type * as tf from '@tensorflow/tfjs';
import { DisposedError } from '../../base/errors.js';
import type { EngineState, StateArrays } from '../../generation/engine.js';
import type { DeviceSlot, SlotGuest } from '../device_slot.js';
import { FEWER_ROWS, stateBytes } from '../memory.js';
import { stateTensors } from './arrays.js';
import type { RecurrentCache, StatesOf } from './cache.js';

/** State of a batch: the cache, and the logits after each row's last token on the host. */
export class EagerState implements EngineState, SlotGuest {
  private disposed = false;
  seen: number[];
  /** Others may run within a call: calls on one state follow one another. */
  readonly turns = new Turns();
  /** Where it was last decoded by prepared steps. It may have gone home since. */
  private slot: DeviceSlot | null = null;
  /** Tokens that were fed there to the row with the most of them, of which the cache does not know yet. */
  private fedThere = 0;
  /** Which rows were fed a token at all. */
  private readonly fed: boolean[];
  /** Whether the scores on the host are older than those of the device; and these as a tensor, once they came back. */
  private stale = false;
  private returned: tf.Tensor2D | null = null;

  constructor(
    private readonly network: StatesOf,
    private readonly owned: RecurrentCache,
    private rows: (Float32Array | null)[],
    seen?: readonly number[],
  ) {
    this.seen = seen ? [...seen] : new Array<number>(owned.batch).fill(0);
    this.fed = rows.map((row) => row !== null);
  }

  private get alive(): RecurrentCache {
    if (this.disposed) throw new DisposedError('This generation state was disposed');
    return this.owned;
  }

  /** The cache as it is now: what a device has comes back. */
  get cache(): RecurrentCache {
    const cache = this.alive;
    if (this.slot?.has(this)) this.slot.sendHome();
    return cache;
  }

  get batch(): number {
    return this.alive.batch;
  }

  /** The scores after each row's last token, null for one that was fed nothing. */
  async scores(): Promise<(Float32Array | null)[]> {
    void this.alive;
    if (this.stale) {
      const logits = this.returned ?? this.slot!.logits();
      const values = await logits.data<'float32'>();
      logits.dispose();
      // it may have been sent home meanwhile, with the same scores
      this.returned?.dispose();
      const size = values.length / this.fed.length;
      const rows = this.fed.map((fed, i) => (fed ? values.slice(i * size, (i + 1) * size) : null));
      [this.rows, this.returned, this.stale] = [rows, null, false];
    }
    return this.rows;
  }

  /** Sets the scores of a row. */
  setScores(row: number, values: Float32Array): void {
    this.rows[row] = values;
    this.fed[row] = true;
  }

  /** For a slot: what it takes over. */
  get layers(): readonly Readonly<Record<string, tf.Tensor>>[] {
    return this.alive.layers;
  }

  /** The same; scores() was waited for. */
  get logits(): readonly Float32Array[] {
    return this.rows.map((row) => row ?? new Float32Array(this.network.config.vocab_size));
  }

  comeIn(slot: DeviceSlot): void {
    this.slot = slot;
  }

  /** Says how many tokens were fed to each row in the slot. */
  fedIn(counts: readonly number[]): void {
    this.stale = true;
    this.fedThere += Math.max(...counts);
    counts.forEach((count, row) => {
      this.seen[row]! += count;
      this.fed[row] ||= count > 0;
    });
  }

  comeBack(states: Record<string, tf.Tensor>[], logits: tf.Tensor2D): void {
    this.owned.advance(states, this.fedThere);
    this.fedThere = 0;
    if (this.stale) this.returned = logits;
    else logits.dispose();
  }

  async clone(): Promise<EagerState> {
    return this.turns.take(async () => {
      const rows = await this.scores();
      return new EagerState(this.network, this.cache.clone(), [...rows], this.seen);
    });
  }

  async select(rows: readonly number[]): Promise<EagerState> {
    checkMemory(rows.length * stateBytes(this.network), `A state of ${rows.length} rows`, FEWER_ROWS);
    const pick = <T>(from: readonly T[]): T[] => rows.map((row) => from[row]!);
    return this.turns.take(async () => {
      const scores = await this.scores();
      return new EagerState(this.network, this.cache.select(rows), pick(scores), pick(this.seen));
    });
  }

  async toArrays(): Promise<StateArrays> {
    return this.turns.take(async () => {
      const tensors = stateTensors(this.network, this.batch);
      const rows = await this.scores();
      const { layers } = await this.cache.toArrays();
      layers.forEach((layer, i) => {
        for (const [name, values] of Object.entries(layer)) tensors[`layers.${i}.${name}`]!.data.set(values);
      });
      rows.forEach((row, i) => row && tensors['logits']!.data.set(row, i * row.length));
      return { seen: [...this.seen], fed: rows.map((row) => row !== null), tensors };
    });
  }

  dispose(): void {
    if (this.disposed) return;
    this.disposed = true;
    this.slot?.forget(this);
    this.returned?.dispose();
    this.owned.dispose();
  }
}
