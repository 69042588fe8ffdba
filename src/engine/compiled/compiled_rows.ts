/** The rows of a scheduler in a compiled engine's program: filled from wherever a state lies, run in blocks, copied out. */
import { GenerationError } from '../../base/errors.js';
import type {
  DecodingRows,
  RowOutcome,
  RowPlaces,
  RowSampling,
  RowTurn,
  Seat,
} from '../../generation/decoding_rows.js';
import type { EngineState } from '../../generation/engine.js';
import { noChoice } from '../../generation/scores.js';
import { onGpu } from '../../runtime/index.js';
import type { DeviceState } from '../states/device_state.js';
import type { RowsOfProgram } from './decoding_program.js';
import type { DevicePlaces } from './device_places.js';
import { COUNT, functions, places, variables } from './names.js';
import { type StateVariable } from './program_states.js';
import type { Loaded, RunningProgram } from './programs.js';
import { historyOf, maskWords, MOST_EOS, ROW_SETTINGS, rowSettings } from './row_settings.js';
import { CHOICE } from './sampling.js';
import { fewestTogether, readSegments } from './segments.js';
import type { StateSlots } from './state_slots.js';
import { warmCopies, warmReaders } from './warm_places.js';

/** What rows ask of the engine whose program they are in. */
export interface RowsKeeper {
  readonly vocab_size: number;
  /** Whether loops take a number of iterations. */
  readonly counted: boolean;
  /** Bytes of the state of one row. */
  readonly row_bytes: number;
  readonly slots: StateSlots;
  /** Does something with the program of the rows, alone. */
  withRows<T>(work: (loaded: Loaded) => T | Promise<T>): Promise<T>;
  /** @throws DisposedError for an engine that is gone */
  alive(): void;
  stateVariables(place: string, rows: number): StateVariable[];
  /** The rows are not needed any more. */
  closeRows(rows: CompiledRows): void;
}

/** What is known of a row. */
interface Row {
  /** Where it is among the rows of the present size; null where nothing is in it. */
  at: number | null;
  /** Ids that were read. */
  seen: number;
}

/** What the device knows at one place of the present size besides the state. */
interface Told {
  bias: string;
  /** Whether the history there is that of the row's text. */
  history: boolean;
}

/**
 * Rows that run are among as few as there are functions for: a row that stands still costs a CPU as much as one that runs. When more come or some
 * go, those that there are move.
 */
export class CompiledRows implements DecodingRows {
  readonly most_eos = MOST_EOS;
  readonly rows: number;
  readonly block: number;
  readonly readers: number;
  readonly fewest: number;
  private readonly sizes: readonly number[];
  private readonly texts: Row[];
  /** By the place among the rows of the present size. */
  private told: Told[];
  /** Which of the sizes is in use. */
  private level = 0;
  /** The program that holds the rows now. */
  private program: RunningProgram | null = null;
  private devicePlaces: DevicePlaces | null = null;
  /** Their states on the host, while no program holds them. */
  private parked: ArrayBufferView[] | null = null;

  constructor(
    private readonly keeper: RowsKeeper,
    private readonly about: RowsOfProgram,
  ) {
    this.sizes = about.sizes;
    this.block = about.block;
    this.readers = Math.max(1, about.readers);
    this.fewest = fewestTogether(this.readers, onGpu());
    this.rows = this.sizes.at(-1)!;
    this.texts = Array.from({ length: this.rows }, () => ({ at: null, seen: 0 }));
    this.told = this.nothingTold();
  }

  get places(): RowPlaces | null {
    const { kept } = this.about;
    if (kept === 0) return null;
    const own = this.devicePlaces;
    const due = (own?.reading.filter((state) => state !== null).length ?? 0) + Number(this.keeper.slots.holds(1));
    return { count: kept, free: own?.free ?? kept, due, each: this.keeper.row_bytes };
  }

  read(states: readonly EngineState[], rows: readonly Int32Array[]): Promise<void> {
    return this.keeper.withRows(async (loaded) => {
      await this.settled(loaded);
      const { program } = loaded;
      const { readers: r, readerSegments } = this.about;
      const at = await this.keeper.slots.bringToReaders(states, loaded);
      const all = Array.from({ length: r }, (): Int32Array => new Int32Array(0));
      rows.forEach((ids, i) => (all[at[i]!] = ids));
      const own = states as readonly DeviceState[];
      await readSegments(all, readerSegments, {
        before: () => this.keeper.alive(),
        call: (t, inputs) => program.call(functions.prefillOf(places.readers(r), t), inputs, ['fed']),
        after: (_, { counts, ended }) => {
          for (const [i, state] of own.entries()) {
            const reader = at[i]!;
            state.seen[0]! += counts[reader]!;
            if (counts[reader]! > 0) state.fed[0] = ended[reader]!;
          }
        },
      });
    });
  }

  seat(seats: readonly Seat[]): Promise<void> {
    return this.keeper.withRows(async (loaded) => {
      const program = await this.settled(loaded);
      const coming = new Set(seats.map(({ row }) => row));
      const needed = this.texts.filter(({ at }, row) => at !== null || coming.has(row)).length;
      while (needed > this.size) await this.move(program, this.level + 1);
      const target = places.rows(this.size);
      /** Copies that can be made together, by where they come from. */
      const waiting = new Map<string, { from: number; to: number; row: number; seen: number }[]>();
      const copy = async (name: string): Promise<void> => {
        const copies = waiting.get(name) ?? [];
        waiting.delete(name);
        if (copies.length === 0) return;
        const pairs = copies.map(({ from, to }) => [from, to] as const);
        if (loaded.places) await loaded.places.copy(name, target, pairs);
        else for (const [from, to] of pairs) await program.call(functions.copy(name, target), { from, to });
        for (const { row, seen } of copies) this.texts[row]!.seen = seen;
      };
      for (const { row, state } of seats) {
        const { own, place } = await this.keeper.slots.locate(state);
        if (!own.fed[0])
          throw new GenerationError('seat: the state has no logits: feed it at least one token.', { row });
        const text = this.texts[row]!;
        text.at ??= this.free();
        this.told[text.at]!.history = false;
        const name = place.area === 'slot' ? places.slot(1) : loaded.places!.nameOf(place.area);
        const copies = waiting.get(name) ?? [];
        waiting.set(name, [...copies, { from: place.at, to: text.at, row, seen: own.seen[0]! }]);
        // the next one may come into the slot
        if (place.area === 'slot') await copy(name);
      }
      for (const name of [...waiting.keys()]) await copy(name);
    });
  }

  vacate(row: number): void {
    this.texts[row]!.at = null;
  }

  lift(rows: readonly number[]): Promise<EngineState[]> {
    return this.keeper.withRows(async (loaded) => {
      const program = await this.settled(loaded);
      const { slots } = this.keeper;
      const source = places.rows(this.size);
      const free = loaded.places?.freePlaces(rows.length) ?? [];
      const at = rows.map((row) => this.at(row)); // vacate() may come meanwhile
      const made = rows.map((row) => slots.create(1, [this.texts[row]!.seen], [true]));
      if (free.length > 0) {
        const copies = free.map((to, i) => [at[i]!, to] as const);
        await loaded.places!.copy(source, places.kept(this.about.kept), copies);
        for (const [i, to] of free.entries()) loaded.places!.put(made[i]!, { area: 'kept', at: to });
      }
      for (let i = free.length; i < rows.length; i++) {
        await slots.emptySlot(1);
        loaded.untouched.delete(1);
        await program.call(functions.copy(source, places.slot(1)), { from: at[i]!, to: 0 });
        slots.inSlot(made[i]!);
      }
      return made;
    });
  }

  decode(turns: readonly RowTurn[]): Promise<RowOutcome[]> {
    return this.keeper.withRows(async (loaded) => {
      const program = await this.settled(loaded);
      while (this.level > 0 && this.taken <= this.sizes[this.level - 1]!) await this.move(program, this.level - 1);
      for (const turn of turns) await this.tell(program, turn);
      return this.run(program, turns);
    });
  }

  /** Compiles the functions of all sizes; while rows are in use, those that leave them as they are. */
  warmup(masks = false): Promise<void> {
    return this.keeper.withRows(async (loaded) => {
      const program = await this.settled(loaded);
      await this.keeper.slots.emptySlot(1);
      loaded.untouched.delete(1);
      for (const [i, size] of this.sizes.entries()) {
        const inputs = (steps: number): Record<string, Float32Array | Int32Array> => this.inputs([], steps, size);
        // not counted, a first token is a call of its own
        if (!this.keeper.counted || this.block === 1) await program.call(functions.rows(size), inputs(1), ['token']);
        if (this.block > 1) {
          const count: Record<string, number> = this.keeper.counted ? { [COUNT]: 1 } : {};
          await program.call(functions.rowsLoop(size), { ...inputs(this.block), ...count }, ['token']);
        }
        const mask = new Int32Array(size * maskWords(this.keeper.vocab_size)).fill(-1);
        if (masks) await program.call(functions.rowsMasked(size), { ...inputs(1), mask }, ['token', 'logits']);
        if (this.taken > 0) continue;
        await warmCopies(loaded, places.rows(size));
        if (i === 0) continue;
        for (const [a, b] of [
          [size, this.sizes[i - 1]!],
          [this.sizes[i - 1]!, size],
        ] as const)
          await program.call(functions.move(a, b), { from: 0, to: 0 });
      }
      await warmReaders(loaded);
    });
  }

  dispose(): void {
    this.program = this.parked = this.devicePlaces = null;
    this.keeper.closeRows(this);
  }

  /** The program of the rows is about to go: their states come to the host. */
  async park(program: RunningProgram): Promise<void> {
    if (program !== this.program) return;
    this.parked = await program.readAllBytes(this.own().map(({ name }) => name));
    this.program = this.devicePlaces = null;
  }

  /** How many rows there are in the present size. */
  private get size(): number {
    return this.sizes[this.level]!;
  }

  private get taken(): number {
    return this.texts.filter(({ at }) => at !== null).length;
  }

  /** The first place that nothing is in. */
  private free(): number {
    const taken = new Set(this.texts.map(({ at }) => at));
    for (let at = 0; ; at++) if (!taken.has(at)) return at;
  }

  private at(row: number): number {
    const { at } = this.texts[row]!;
    if (at === null) throw new GenerationError(`internal: row ${row} holds no text`, { row });
    return at;
  }

  /** Moves all rows that are in use to those of the next size, up or down. */
  private async move(program: RunningProgram, level: number): Promise<void> {
    const name = functions.move(this.size, this.sizes[level]!);
    const told = this.nothingTold();
    let to = 0;
    for (const text of this.texts) {
      const { at } = text;
      if (at === null) continue;
      await program.call(name, { from: at, to });
      told[to] = this.told[at]!;
      if (text.at !== null) text.at = to; // vacate() may have come meanwhile
      to++;
    }
    this.told = told;
    this.level = level;
  }

  private nothingTold(): Told[] {
    return Array.from({ length: this.rows }, () => ({ bias: '?', history: false }));
  }

  private own(): StateVariable[] {
    return this.keeper.stateVariables(places.rows(this.size), this.size);
  }

  /** The program with the rows as they were, whichever it is now. */
  private async settled({ program, places: own }: Loaded): Promise<RunningProgram> {
    if (this.program === program) return program;
    const { parked } = this;
    if (parked)
      await program.assignAll(Object.fromEntries(this.own().map(({ name }, i) => [name, () => parked[i]!] as const)));
    // what another scheduler left there may be no numbers
    await program.zeroAll(this.sizes.flatMap((size) => [variables.rowsBias(size), variables.rowsHistory(size)]));
    this.told = Array.from({ length: this.rows }, () => ({ bias: '', history: false }));
    this.program = program;
    this.devicePlaces = own;
    this.parked = null;
    return program;
  }

  /** Uploads what the device does not know of a row. */
  private async tell(program: RunningProgram, { row, sampling, ids, prompt_length }: RowTurn): Promise<void> {
    const at = this.at(row);
    const told = this.told[at]!;
    const v = this.keeper.vocab_size;
    const bias = biasKey(sampling.bias);
    if (told.bias !== bias) {
      const values = new Float32Array(v);
      for (const [id, value] of sampling.bias) values[id] = value;
      told.bias = '?'; // until the call has ended: it may fail
      await program.call(functions.rowBias(this.size), { row: at, values });
      told.bias = bias;
    }
    if (told.history || !looksBack(sampling)) return;
    await program.call(functions.rowHistory(this.size), { row: at, values: historyOf(ids, prompt_length, v) });
    told.history = true;
  }

  private inputs(turns: readonly RowTurn[], steps: number, n = this.size): Record<string, Float32Array | Int32Array> {
    const left = new Float32Array(n);
    const uniform = new Float32Array(steps * n); // [steps, n]
    const settings = new Float32Array(n * ROW_SETTINGS);
    const eos = new Int32Array(n * MOST_EOS).fill(-1);
    const still = rowSettings(null);
    for (let at = 0; at < n; at++) settings.set(still, at * ROW_SETTINGS);
    for (const { row, count, sampling, uniforms } of turns) {
      const at = this.at(row);
      const most = Math.min(count, steps);
      left[at] = most;
      settings.set(rowSettings(sampling), at * ROW_SETTINGS);
      eos.set(sampling.eos, at * MOST_EOS);
      if (uniforms) for (let k = 0; k < most; k++) uniform[k * n + at] = uniforms[k]!;
    }
    return { left, uniform, settings, eos };
  }

  private async run(program: RunningProgram, turns: readonly RowTurn[]): Promise<RowOutcome[]> {
    const n = this.size;
    const at = turns.map(({ row }) => this.at(row)); // vacate() may come while the call runs
    const masked = turns.some(({ mask, logits }) => mask != null || logits === true);
    const most = Math.min(this.block, Math.max(...turns.map(({ count }) => count)));
    // a counted loop of one is as good as a step, and one function less to compile
    const loops = !masked && this.block > 1 && (most > 1 || this.keeper.counted);
    const steps = loops ? this.block : 1;
    const inputs = this.inputs(turns, steps);
    let result: Record<string, ArrayLike<number>>;
    if (masked) {
      const wanted = turns.some(({ logits }) => logits) ? ['token', 'logits'] : ['token'];
      result = await program.call(functions.rowsMasked(n), { ...inputs, mask: this.masks(turns) }, wanted);
    } else if (loops) {
      const count: Record<string, number> = this.keeper.counted ? { [COUNT]: most } : {};
      result = await program.call(functions.rowsLoop(n), { ...inputs, ...count }, ['token']);
    } else result = await program.call(functions.rows(n), inputs, ['token']);
    const tokens = result['token'] as Int32Array; // [steps, n]
    const logits = result['logits'] as Float32Array | undefined;
    return turns.map((turn, i) => this.outcome(turn, at[i]!, tokens, masked ? 1 : most, logits));
  }

  private masks(turns: readonly RowTurn[]): Int32Array {
    const words = maskWords(this.keeper.vocab_size);
    const mask = new Int32Array(this.size * words).fill(-1);
    for (const { row, mask: own } of turns) {
      if (!own) continue;
      const at = this.at(row) * words;
      mask.fill(0, at, at + words);
      mask.set(own.subarray(0, words), at);
    }
    return mask;
  }

  private outcome(
    turn: RowTurn,
    at: number,
    tokens: Int32Array,
    most: number,
    logits: Float32Array | undefined,
  ): RowOutcome {
    const { row, count, sampling } = turn;
    const text = this.texts[row]!;
    const ids: number[] = [];
    let error: Error | undefined;
    for (let k = 0; k < Math.min(count, most); k++) {
      const id = tokens[k * this.size + at]!;
      if (id < 0) {
        error = noChoice(id === CHOICE.invalid, row, turn.ids.length + ids.length);
        break;
      }
      ids.push(id);
      text.seen++;
      if (sampling.eos.includes(id)) break;
    }
    const v = this.keeper.vocab_size;
    const own = turn.logits && logits ? { logits: logits.slice(at * v, (at + 1) * v) } : {};
    return { ids, ...own, ...(error && { error }) };
  }
}

const looksBack = ({ repetition_penalty, presence_penalty, frequency_penalty }: RowSampling): boolean =>
  repetition_penalty !== 1 || presence_penalty !== 0 || frequency_penalty !== 0;

const keys = new WeakMap<ReadonlyMap<number, number>, string>();

/** Text that is equal for equal biases; empty for none. */
function biasKey(bias: ReadonlyMap<number, number>): string {
  let key = keys.get(bias);
  if (key === undefined) keys.set(bias, (key = [...bias].flat().join()));
  return key;
}
