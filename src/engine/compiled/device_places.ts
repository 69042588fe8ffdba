/** Places for states of one row on the device, in one program: who has which, and copies between them. */
import type { RowsOptions } from '../../generation/decoding_rows.js';
import type { DeviceState, Spot } from '../states/device_state.js';
import { functions, places } from './names.js';
import type { RunningProgram } from './programs.js';

/** From which row to which. */
export type Copy = readonly [from: number, to: number];

/** Fewer copies are sooner made one by one than in a call that always makes as many as there are readers. */
const TOGETHER = 4;

/** Prompts that are read together. Of 64 ids each they are about as many ids as keep a GPU busy; a CPU gains little from more. */
const READERS = { gpu: 16, cpu: 8 } as const;

/** What readers, and kept states, take of the memory where nothing is said. */
const SHARES = { gpu: [1 / 16, 1 / 8], cpu: [1 / 32, 1 / 16] } as const;

/** Kept states for each row. */
const KEPT = { gpu: 1, cpu: 2 } as const;

/** A device's memory. */
export interface PlaceMemory {
  /** `cpu` is the host. */
  readonly of: 'gpu' | 'cpu';
  readonly bytes: number;
}

/**
 * How many places there are beside so many rows.
 * @param each bytes of a state @param options see RowsOptions
 */
export function placeCounts(
  rows: number,
  each: number,
  { readers, device_bytes }: Pick<RowsOptions, 'readers' | 'device_bytes'>,
  { of, bytes }: PlaceMemory,
): { readers: number; kept: number } {
  const [readersMost, keptMost] = SHARES[of].map((share) => Math.floor((bytes * share) / each)) as [number, number];
  const reading = readers ?? Math.min(READERS[of], rows, readersMost);
  const kept = device_bytes == null ? Math.min(KEPT[of] * rows, keptMost) : Math.floor(device_bytes / each);
  return { readers: reading > 1 ? reading : 0, kept };
}

export class DevicePlaces {
  private readonly holders: Record<Spot['area'], (DeviceState | null)[]>;

  /** @param readers prompts that are read together @param kept states that wait for whoever goes on with them */
  constructor(
    readonly program: RunningProgram,
    readonly readers: number,
    readonly kept: number,
  ) {
    this.holders = { readers: new Array<null>(readers).fill(null), kept: new Array<null>(kept).fill(null) };
  }

  /** Places for kept states that nothing is in. */
  get free(): number {
    return this.holders.kept.filter((holder) => holder === null).length;
  }

  /** All states that have a place. */
  all(): DeviceState[] {
    return [...this.holders.readers, ...this.holders.kept].filter((holder) => holder !== null);
  }

  /** Who has which reader. */
  get reading(): readonly (DeviceState | null)[] {
    return this.holders.readers;
  }

  /** The first places for kept states that are free, as many as there are of those wanted. */
  freePlaces(count: number): number[] {
    const found: number[] = [];
    for (let at = 0; at < this.kept && found.length < count; at++) if (!this.holders.kept[at]) found.push(at);
    return found;
  }

  /** From here on the state is there, and nowhere else of these places. */
  put(state: DeviceState, spot: Spot): void {
    this.leave(state);
    this.holders[spot.area][spot.at] = state;
    state.spot = spot;
  }

  /** The state has no place any more. */
  leave(state: DeviceState): void {
    if (!state.spot) return;
    this.holders[state.spot.area][state.spot.at] = null;
    state.spot = null;
  }

  /** Where a spot's values lie in the program. */
  nameOf(area: Spot['area'] | 'slot'): string {
    if (area === 'slot') return places.slot(1);
    return area === 'readers' ? places.readers(this.readers) : places.kept(this.kept);
  }

  /** Copies rows. @param from name of a place @param to name of another */
  async copy(from: string, to: string, copies: readonly Copy[]): Promise<void> {
    const steps = this.readers;
    let rest = copies;
    while (rest.length >= TOGETHER && steps >= TOGETHER && this.goTogether(from, to)) {
      const now = rest.slice(0, steps);
      rest = rest.slice(steps);
      // the last once more, and once more, is the same
      const at = (k: 0 | 1): Int32Array =>
        Int32Array.from({ length: steps }, (_, i) => now[Math.min(i, now.length - 1)]![k]);
      await this.program.call(functions.copies(from, to), { from: at(0), to: at(1) });
    }
    for (const [a, b] of rest) await this.program.call(functions.copy(from, to), { from: a, to: b });
  }

  /** The slot has one row, so that nothing goes there together. */
  private goTogether(from: string, to: string): boolean {
    return from !== places.slot(1) && to !== places.slot(1);
  }

  /** Zeros for some readers, or for the slot of one row. */
  async clear(area: 'slot' | 'readers', rows: readonly number[]): Promise<void> {
    const keep = new Float32Array(area === 'slot' ? 1 : this.readers).fill(1);
    for (const row of rows) keep[row] = 0;
    await this.program.call(functions.clear(this.nameOf(area)), { keep });
  }
}
