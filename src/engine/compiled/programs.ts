/** The programs of an engine: which batch sizes they are for, and which of them are kept. */
import { checkMemory, totalMemory } from '../../base/memory.js';
import type { Program } from '../../jit/index.js';
import { onGpu } from '../../runtime/index.js';
import { FEWER_ROWS, logitsBytes, stateBytes } from '../memory.js';
import type { NetworkWeights } from '../network_weights.js';
import { isParallel, type Spread } from '../placement/spread.js';
import { buildDecodingProgram, type RowsOfProgram } from './decoding_program.js';
import { buildDividedProgram } from './divided_program.js';
import { buildParallelProgram } from './parallel_program.js';
import { DevicePlaces } from './device_places.js';
import { type CompiledEngineOptions, programOptions } from './options.js';
import { VocabularyMasks } from './sampling_inputs.js';

/** What an engine asks of its program. */
export type RunningProgram = Pick<
  Program,
  'call' | 'assignAll' | 'readAll' | 'readAllBytes' | 'zeroAll' | 'dispose'
> & { assign(name: string, bytes: ArrayBufferView): void };

/** A program that is loaded, and what is known of its variables. */
export interface Loaded {
  readonly program: RunningProgram;
  readonly batches: readonly number[];
  readonly masks: VocabularyMasks;
  /** Batch sizes whose states are still the zeros of a fresh program. */
  readonly untouched: Set<number>;
  /** Per batch size, how many tokens each row may still choose on the device. */
  readonly leftKeys: Map<number, string>;
  /** Whether compactMemory() was called since the program was made. */
  memoryCompacted: boolean;
  readonly rows: RowsOfProgram | null;
  /** Whether it has functions that make states zeros (functions.zero()). */
  readonly zeroes: boolean;
  /** Places for states of one row beside the slots, where there are any. */
  readonly places: DevicePlaces | null;
}

/** Brings what lies in a program that is about to go to the host. */
export interface Parking {
  /** The state in the slot of a size, if any. */
  slot(batch: number): Promise<void>;
  /** What lies elsewhere; after the slots. */
  others(loaded: Loaded): Promise<void>;
}

/** Most programs that are kept besides those of the sizes that were asked for. */
const KEPT = 7;
/** What their states may take of all memory. */
const KEPT_SHARE = 1 / 8;

/**
 * A loaded graph cannot grow. On a CPU every batch size is a program of its own, over the same weights: a new size compiles its own
 * functions and no others. A GPU cannot share what sessions hold, so there, and on several
 * devices, all sizes are one program, which is made anew for a new one.
 */
export class Programs {
  /** The one that was used last is last. */
  private loaded: Loaded[] = [];
  private readonly asked: readonly number[];
  /** Rows that a scheduler has open. */
  private rows: RowsOfProgram | null = null;

  constructor(
    private readonly weights: NetworkWeights,
    private readonly options: CompiledEngineOptions,
    private readonly parking: Parking,
    private readonly spread: Spread | null = null,
  ) {
    this.asked = [...new Set(options.batches ?? [1])];
  }

  /** Whether sizes have programs of their own, which share their weights. */
  private get apart(): boolean {
    return !onGpu() && !this.spread;
  }

  /** The program for a size, if there is one. */
  of(batch: number): Loaded | undefined {
    return this.loaded.find(({ batches }) => batches.includes(batch));
  }

  /** @param alive throws where the engine was disposed of meanwhile */
  async ready(batch: number, alive: () => void): Promise<Loaded> {
    const known = this.of(batch);
    if (known) {
      if (this.loaded.at(-1) !== known) this.loaded = [...this.loaded.filter((one) => one !== known), known];
      return known;
    }
    const alone = this.apart;
    const others = alone ? [] : (this.loaded[0]?.batches ?? this.asked);
    if (alone) await this.makeRoom(batch);
    else for (const one of this.loaded) await this.drop(one);
    if (alone) checkMemory(this.bytes(batch), `A program for ${batch} rows`, FEWER_ROWS);
    return this.load([...new Set([...others, batch])], alive);
  }

  /** From here on there is a program with such rows; null for none. That of one row is the same one. */
  openRows(rows: RowsOfProgram | null): void {
    this.rows = rows;
  }

  /** The program of the rows that are open. @param alive throws where the engine was disposed of meanwhile */
  async readyRows(alive: () => void): Promise<Loaded> {
    const rows = this.rows!;
    const wanted = JSON.stringify(rows);
    const known = this.loaded.find((one) => one.rows !== null && JSON.stringify(one.rows) === wanted);
    if (known) return known;
    if (!this.apart) {
      const batches = this.loaded[0]?.batches ?? this.asked;
      for (const one of this.loaded) await this.drop(one);
      return this.load([...new Set([...batches, 1])], alive, rows);
    }
    const count = rows.sizes.reduce((sum, size) => sum + size, 1 + rows.readers + rows.kept);
    checkMemory(this.bytes(count), `A program for rows [${rows.sizes.join(', ')}]`, FEWER_ROWS);
    const before = this.loaded.filter(({ batches }) => batches.includes(1));
    const loaded = await this.load([1], alive, rows);
    for (const one of before) await this.drop(one);
    return loaded;
  }

  private async load(
    batches: readonly number[],
    alive: () => void,
    rows: RowsOfProgram | null = this.apart ? null : this.rows,
  ): Promise<Loaded> {
    const { weights, spread } = this;
    const options = { ...programOptions(this.options, batches, spread), ...(rows && { rows }) };
    const several = isParallel(spread)
      ? buildParallelProgram(weights, options, spread.plan, spread.devices)
      : spread && buildDividedProgram(weights, options, spread);
    const program = several ?? buildDecodingProgram(weights, options);
    const compile = (): Promise<void> =>
      several ? several.compile() : (program as Program).compile(lender as Program);
    const loaded: Loaded = {
      program,
      batches,
      masks: new VocabularyMasks(),
      untouched: new Set(batches),
      leftKeys: new Map(),
      memoryCompacted: false,
      rows,
      zeroes: options.zeroes === true,
      places: rows && rows.readers + rows.kept > 0 ? new DevicePlaces(program, rows.readers, rows.kept) : null,
    };
    const lender = this.loaded.at(-1)?.program;
    this.loaded.push(loaded); // already: dispose() may come meanwhile
    try {
      await compile();
      alive();
      return loaded;
    } catch (error) {
      // one that has no room must not be in the way of those after it
      await this.drop(loaded);
      alive();
      throw error;
    }
  }

  /** Of the states of a batch, with logits, and of what each row has said. */
  private bytes(b: number): number {
    const { network } = this.weights;
    return b * (stateBytes(network, this.options.state_dtype) + 2 * logitsBytes(network));
  }

  /** Drops programs that were not asked for, the longest unused first, until one more fits. */
  private async makeRoom(batch: number): Promise<void> {
    const budget = totalMemory() * KEPT_SHARE;
    for (;;) {
      const others = this.loaded.filter(
        ({ batches, rows }) => !batches.some((b) => this.asked.includes(b)) && !(rows && rows === this.rows),
      );
      const held = [batch, ...others.flatMap(({ batches }) => batches)].reduce((sum, b) => sum + this.bytes(b), 0);
      // the last one lends the weights
      if (others.length === 0 || this.loaded.length === 1 || (others.length < KEPT && held <= budget)) return;
      await this.drop(others[0]!);
    }
  }

  private async drop(one: Loaded): Promise<void> {
    for (const batch of one.batches) await this.parking.slot(batch);
    await this.parking.others(one);
    this.loaded = this.loaded.filter((other) => other !== one);
    one.program.dispose();
  }

  dispose(): void {
    for (const { program } of this.loaded) program.dispose();
    this.loaded = [];
  }
}
