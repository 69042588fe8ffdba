/** The rows of a scheduler in a compiled engine's program: filled from the slot of one row, run in blocks, copied out. */
import { GenerationError } from '../../base/errors.js';
import type { DecodingRows, RowOutcome, RowSampling, RowTurn } from '../../generation/decoding_rows.js';
import type { EngineState } from '../../generation/engine.js';
import { noChoice } from '../../generation/scores.js';
import type { Program } from '../../jit/index.js';
import type { DeviceState } from '../states/device_state.js';
import { COUNT, functions, places, variables } from './names.js';
import { type StateVariable } from './program_states.js';
import type { Loaded } from './programs.js';
import { historyOf, maskWords, MOST_EOS, ROW_SETTINGS, rowSettings } from './row_settings.js';
import { CHOICE } from './sampling.js';

/** What rows ask of the engine whose program they are in. */
export interface RowsKeeper {
  readonly vocab_size: number;
  /** Whether loops take a number of iterations. */
  readonly counted: boolean;
  /** Does something with the program of the rows, alone. */
  withRows<T>(work: (loaded: Loaded) => T | Promise<T>): Promise<T>;
  /** The same, with a state of one row in its slot. */
  withSlot<T>(state: EngineState, work: (own: DeviceState, loaded: Loaded) => T | Promise<T>): Promise<T>;
  /** The same, with the slot of one row free: what the work leaves there is a new state. */
  fillSlot(seen: number, work: (loaded: Loaded) => void | Promise<void>): Promise<DeviceState>;
  stateVariables(place: string, rows: number): StateVariable[];
  /** The rows are not needed any more. */
  closeRows(rows: CompiledRows): void;
}

/** What is known of a row. */
interface Place {
  /** Where it is among the rows of the present size; null where nothing is in it. */
  at: number | null;
  /** Ids that were read. */
  seen: number;
  bias: string;
  /** Whether its history on the device is that of its text. */
  history: boolean;
}

/**
 * Rows that run are among as few as there are functions for: a row that stands still costs a CPU as much as one that runs. When more come or some
 * go, those that there are move.
 */
export class CompiledRows implements DecodingRows {
  readonly most_eos = MOST_EOS;
  readonly rows: number;
  private readonly places: Place[];
  /** Which of the sizes is in use. */
  private level = 0;
  /** The program that holds the rows now. */
  private program: Program | null = null;
  /** Their states on the host, while no program holds them. */
  private parked: ArrayBufferView[] | null = null;

  /** @param sizes ascending; the last is how many rows there are */
  constructor(
    private readonly keeper: RowsKeeper,
    private readonly sizes: readonly number[],
    readonly block: number,
  ) {
    this.rows = sizes.at(-1)!;
    this.places = Array.from({ length: this.rows }, () => ({ at: null, seen: 0, bias: '', history: false }));
  }

  seat(row: number, state: EngineState): Promise<void> {
    return this.keeper.withSlot(state, async (own, loaded) => {
      if (!own.fed[0]) throw new GenerationError('seat: the state has no logits: feed it at least one token.', { row });
      const program = await this.settled(loaded);
      const place = this.places[row]!;
      if (place.at === null) {
        while (this.taken >= this.size) await this.move(program, this.level + 1);
        place.at = this.free();
        place.bias = '?';
      }
      await program.call(functions.seat(this.size), { row: place.at });
      Object.assign(place, { seen: own.seen[0], history: false });
    });
  }

  vacate(row: number): void {
    this.places[row]!.at = null;
  }

  lift(row: number): Promise<EngineState> {
    return this.keeper.fillSlot(this.places[row]!.seen, async (loaded) => {
      const program = await this.settled(loaded);
      await program.call(functions.lift(this.size), { row: this.at(row) });
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
  async warmup(masks = false): Promise<void> {
    const state = await this.keeper.fillSlot(0, async (loaded) => {
      const program = await this.settled(loaded);
      for (const [i, size] of this.sizes.entries()) {
        const inputs = (steps: number): Record<string, Float32Array | Int32Array> => this.inputs([], steps, size);
        if (!this.keeper.counted || this.block === 1) await program.call(functions.rows(size), inputs(1), ['token']);
        if (this.block > 1) {
          const count: Record<string, number> = this.keeper.counted ? { [COUNT]: 1 } : {};
          await program.call(functions.rowsLoop(size), { ...inputs(this.block), ...count }, ['token']);
        }
        const mask = new Int32Array(size * maskWords(this.keeper.vocab_size)).fill(-1);
        if (masks) await program.call(functions.rowsMasked(size), { ...inputs(1), mask }, ['token', 'logits']);
        if (this.taken > 0) continue;
        for (const name of [functions.seat(size), functions.lift(size)]) await program.call(name, { row: 0 });
        if (i === 0) continue;
        for (const [a, b] of [
          [size, this.sizes[i - 1]!],
          [this.sizes[i - 1]!, size],
        ] as const)
          await program.call(functions.move(a, b), { from: 0, to: 0 });
      }
    });
    state.dispose();
  }

  dispose(): void {
    this.program = this.parked = null;
    this.keeper.closeRows(this);
  }

  /** The program of the rows is about to go: their states come to the host. */
  async park(program: Program): Promise<void> {
    if (program !== this.program) return;
    this.parked = await program.readAllBytes(this.own().map(({ name }) => name));
    this.program = null;
  }

  /** How many rows there are in the present size. */
  private get size(): number {
    return this.sizes[this.level]!;
  }

  private get taken(): number {
    return this.places.filter(({ at }) => at !== null).length;
  }

  /** The first place that nothing is in. */
  private free(): number {
    const taken = new Set(this.places.map(({ at }) => at));
    for (let at = 0; ; at++) if (!taken.has(at)) return at;
  }

  private at(row: number): number {
    const { at } = this.places[row]!;
    if (at === null) throw new GenerationError(`internal: row ${row} holds no text`, { row });
    return at;
  }

  /** Moves all rows that are in use to those of the next size, up or down. */
  private async move(program: Program, level: number): Promise<void> {
    const name = functions.move(this.size, this.sizes[level]!);
    let to = 0;
    for (const place of this.places) {
      if (place.at === null) continue;
      await program.call(name, { from: place.at, to });
      if (place.at !== null) place.at = to; // vacate() may have come meanwhile
      to++;
    }
    this.level = level;
  }

  private own(): StateVariable[] {
    return this.keeper.stateVariables(places.rows(this.size), this.size);
  }

  /** The program with the rows as they were, whichever it is now. */
  private async settled({ program }: Loaded): Promise<Program> {
    if (this.program === program) return program;
    const { parked } = this;
    if (parked)
      await program.assignAll(Object.fromEntries(this.own().map(({ name }, i) => [name, () => parked[i]!] as const)));
    for (const place of this.places) Object.assign(place, { bias: '?', history: false });
    // what another scheduler left there may be no numbers
    await program.zeroAll(this.sizes.flatMap((size) => [variables.rowsBias(size), variables.rowsHistory(size)]));
    this.program = program;
    this.parked = null;
    return program;
  }

  /** Uploads what the device does not know of a row. */
  private async tell(program: Program, { row, sampling, ids, prompt_length }: RowTurn): Promise<void> {
    const place = this.places[row]!;
    const at = this.at(row);
    const v = this.keeper.vocab_size;
    const bias = biasKey(sampling.bias);
    if (place.bias !== bias) {
      const values = new Float32Array(v);
      for (const [id, value] of sampling.bias) values[id] = value;
      place.bias = '?'; // until the call has ended: it may fail
      await program.call(functions.rowBias(this.size), { row: at, values });
      place.bias = bias;
    }
    if (place.history || !looksBack(sampling)) return;
    await program.call(functions.rowHistory(this.size), { row: at, values: historyOf(ids, prompt_length, v) });
    place.history = true;
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

  private async run(program: Program, turns: readonly RowTurn[]): Promise<RowOutcome[]> {
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
    const place = this.places[row]!;
    const ids: number[] = [];
    let error: Error | undefined;
    for (let k = 0; k < Math.min(count, most); k++) {
      const id = tokens[k * this.size + at]!;
      if (id < 0) {
        error = noChoice(id === CHOICE.invalid, row, turn.ids.length + ids.length);
        break;
      }
      ids.push(id);
      place.seen++;
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
