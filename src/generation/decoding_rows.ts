/**
 * Rows of texts that go on side by side, each with its own settings: what a scheduler asks of an engine. A row is filled
 * with the state of one text, runs, and is copied out or filled anew while the others go on. What a row says depends on
 * its state, settings and numbers alone.
 */
import type { EngineState } from './engine.js';

/** How a row chooses. Keys are those of GenerationConfig, with the same meanings. */
export interface RowSampling {
  readonly do_sample: boolean;
  readonly temperature: number;
  readonly top_k: number;
  readonly top_p: number;
  readonly min_p: number | null;
  readonly typical_p: number;
  readonly epsilon_cutoff: number;
  readonly eta_cutoff: number;
  readonly repetition_penalty: number;
  /** Subtracted from the score of each id that the row chose before. */
  readonly presence_penalty: number;
  /** The same, as often as it did. */
  readonly frequency_penalty: number;
  /** Added to the scores of ids, before all else; -Infinity for never. The same object as long as it says the same. */
  readonly bias: ReadonlyMap<number, number>;
  /** Ids that end the row: its state is then the one after it, and stays. */
  readonly eos: readonly number[];
}

/** What one row shall do in a call. */
export interface RowTurn {
  readonly row: number;
  /** Most tokens. The row stands still when it has them, or has ended. */
  readonly count: number;
  readonly sampling: RowSampling;
  /** Numbers in [0, 1), `count` of them, where it samples. */
  readonly uniforms: Float32Array | null;
  /** Ids of the prompt and those that were chosen, for the penalties. */
  readonly ids: readonly number[];
  /** How many of `ids` are the prompt's. */
  readonly prompt_length: number;
  /** Which ids may come, a bit each: see TokenConstraint. For one token only. */
  readonly mask?: Int32Array | null;
  /** Wants the logits that its token is chosen from. For one token only. */
  readonly logits?: boolean;
}

/** What became of it. */
export interface RowOutcome {
  /** New ids, the one that ended the row included. */
  ids: number[];
  /** The model's own, [vocab_size], where they were wanted. */
  logits?: Float32Array;
  /** Where no id could be chosen: the row is to be given up. */
  error?: Error;
}

/** How rows are opened; see SchedulerOptions. */
export interface RowsOptions {
  /** Most tokens of a call. */
  block?: number;
  /** Fewer rows that the program has, too, for when few run. */
  sizes?: readonly number[];
  /** Prompts that may be read together. Default: 16 on a GPU, within a sixteenth of its memory; 8 on a CPU, within a 32nd. */
  readers?: number;
  /** What states that wait may take of the device. Default: as much as the rows on a GPU, within an eighth of its memory; twice as much on a CPU, within a sixteenth. */
  device_bytes?: number | null;
}

/** A text that gets a row. */
export interface Seat {
  readonly row: number;
  readonly state: EngineState;
}

/** States on the device beside those of rows. */
export interface RowPlaces {
  /** How many there may be, and for how many more there is room. */
  readonly count: number;
  readonly free: number;
  /** States that will want one before prompts are read next: they are where these are read. */
  readonly due: number;
  /** Bytes of one. */
  readonly each: number;
}

export interface DecodingRows {
  readonly rows: number;
  /** Most tokens of a call that are worth while. */
  readonly block: number;
  /** Most end tokens that a row may have. */
  readonly most_eos: number;
  /** Prompts that may be read together: one where each is read alone, by the engine. */
  readonly readers: number;
  /** Fewest prompts that are worth reading together. */
  readonly fewest: number;
  /** Room for states that wait, where the program has some. */
  readonly places: RowPlaces | null;
  /** Reads ids of several texts together; present where there are readers. As prefill() of each state alone. */
  read?(states: readonly EngineState[], rows: readonly Int32Array[]): Promise<void>;
  /** Writes the states of some texts into rows, whatever was there. The states given stay as they are. */
  seat(seats: readonly Seat[]): Promise<void>;
  /** What is in a row is not needed any more. */
  vacate(row: number): void;
  /** Copies of the states of some rows, as states of one row. */
  lift(rows: readonly number[]): Promise<EngineState[]>;
  /** Goes on with some of the rows; the others stand still. */
  decode(turns: readonly RowTurn[]): Promise<RowOutcome[]>;
  /** Compiles what these calls need. @param masks those with masks or logits, too */
  warmup(masks?: boolean): Promise<void>;
  dispose(): void;
}
