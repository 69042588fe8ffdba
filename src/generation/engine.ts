/**
 * What the generation loop asks of a model. Two implementations live in src/engine (eager and compiled); everything
 * above this interface is the same for both. A model with a state of fixed size needs no growing cache: an engine state
 * holds, for each row, the recurrent state after the tokens fed so far and the logits that predict the next one.
 */
import type { DecodingRows, RowsOptions } from './decoding_rows.js';

/** Sampling that an engine can do inside its program. Keys and meanings are those of GenerationConfig. */
export interface EngineSampling {
  do_sample: boolean;
  temperature: number;
  top_k: number;
  top_p: number;
  min_p: number | null;
  repetition_penalty: number;
  /** Default 1, which leaves all. */
  typical_p?: number;
  /** Default 0, which leaves all. */
  epsilon_cutoff?: number;
  /** Default 0, which leaves all. */
  eta_cutoff?: number;
  /** Ids never chosen (suppressed, or padding rows of the vocabulary). */
  suppress: readonly number[];
  /** Ids that end a row; a finished row emits pad_token_id and its state stays as it was after the end token. */
  eos: readonly number[];
  pad_token_id: number;
}

/** Always the best id, the first of equals; nothing is left out and nothing ends a row. */
export const GREEDY: EngineSampling = {
  do_sample: false,
  temperature: 1,
  top_k: 0,
  top_p: 1,
  min_p: null,
  repetition_penalty: 1,
  suppress: [],
  eos: [],
  pad_token_id: 0,
};

/** A state on the host, in a form that is the same for every engine. Float32 and exact: what goes in comes out bit for bit. */
export interface StateArrays {
  /** Tokens fed so far, per row. */
  readonly seen: readonly number[];
  /** Per row, whether it has logits; false for one that was fed nothing, or whose prefill was aborted before its end. */
  readonly fed: readonly boolean[];
  /** By name; row-major, the first axis is that of the rows. Of Mamba-2: `layers.I.conv`, `layers.I.ssm` and `logits`. */
  readonly tensors: Readonly<Record<string, { shape: readonly number[]; data: Float32Array }>>;
}

/** Recurrent state and next-token logits of `batch` rows. Mutable: prefill, step and decode advance it in place. */
export interface EngineState {
  readonly batch: number;
  /** Tokens fed so far, per row. */
  readonly seen: readonly number[];
  /** An independent copy. */
  clone(): Promise<EngineState>;
  /** A new state whose row i is row rows[i] of this one (repeats allowed): beams, samples, finished rows dropped. */
  select(rows: readonly number[]): Promise<EngineState>;
  /** A copy on the host. */
  toArrays(): Promise<StateArrays>;
  /** Whether it takes room on a device with memory of its own, beside what runs there; see RowPlaces. */
  readonly on_device?: boolean;
  /** Gives that room up: the values come to the host. */
  leaveDevice?(): Promise<void>;
  dispose(): void;
}

/** How a prompt is read. */
export interface PrefillReading {
  /** Stops between segments by throwing its reason. */
  signal?: AbortSignal;
  /** Called after each segment with ids done and in all, of the longest row. */
  on_progress?: (done: number, total: number) => unknown;
  /**
   * Takes the last hidden states, after the final norm: called after each segment for each row that had tokens in it.
   * @param row its number @param hidden float32 [tokens, d], flat, the callee's to keep @param at how many of the row's tokens came before
   * @param tokens how many these are
   */
  on_hidden?: (row: number, hidden: Float32Array, at: number, tokens: number) => void;
}

/** A state with the ids that led to it, per row, and what the writer adds. */
export interface StateContents {
  arrays: StateArrays;
  /** Fewer than `seen` where they are not known. */
  ids: number[][];
  extra: Record<string, string>;
}

/** Files of states of one model. */
export interface StateFiles {
  /** Written aside and renamed. @throws SaveError; nothing half written is left */
  write(file: string, contents: StateContents): Promise<void>;
  /** @throws CheckpointError for a file that is damaged or of another model */
  read(file: string): Promise<StateContents>;
  /** Bytes of one row's state as arrays, logits included. */
  readonly row_bytes: number;
}

export interface GenerationEngine {
  readonly kind: 'eager' | 'compiled';
  /** Rows of the embedding matrix, padding rows included: the length of one row of logits. */
  readonly vocab_size: number;
  /** Lengths of the pieces that prompts are read in, ascending, where there are programs for a few lengths. */
  readonly segments?: readonly number[];
  /** Bytes of the host's memory that a batch of so many rows will take at least, beyond what is held already. */
  memoryFor?(rows: number): number;
  /** A fresh state of zeros. */
  createState(batch: number): Promise<EngineState>;
  /** A state from what toArrays() gave, on this or another engine of the same model. @throws ArgumentError for other sizes */
  fromArrays(arrays: StateArrays): Promise<EngineState>;
  /** Feeds each row its tokens (uneven lengths allowed, a row may be empty). An abort leaves the state as it was after the last whole segment. */
  prefill(state: EngineState, rows: readonly Int32Array[], options?: PrefillReading): Promise<void>;
  /** Feeds one token to each row. */
  step(state: EngineState, tokens: Int32Array): Promise<void>;
  /** The float32 logits after each row's last token: one array of vocab_size per row, a fresh copy. */
  logits(state: EngineState): Promise<Float32Array[]>;
  /** Whether decode() can follow these settings for so many rows; where not, logits are taken out and step() is used. */
  canSample?(sampling: EngineSampling, rows: number): boolean;
  /**
   * Present on engines that sample inside their program: chooses up to `count` tokens per row from the resident logits
   * and feeds each back. Returns per row the ids chosen (exactly `count` each, pad_token_id after the end).
   *
   * @param history per row, the ids that repetition_penalty counts
   * @param uniforms when sampling: per row, `count` numbers in [0, 1) from the row's own stream; the token is the first at
   *   which the running sum of probabilities, in the order of ids, exceeds it
   * @param finished rows that ended before: they emit pad_token_id and stay as they are
   */
  decode?(
    state: EngineState,
    count: number,
    sampling: EngineSampling,
    history: readonly Int32Array[],
    uniforms?: readonly Float32Array[],
    finished?: readonly boolean[],
  ): Promise<Int32Array[]>;
  /**
   * Present on engines whose program can hold rows of several texts, one scheduler's at a time; other engines' rows go one after another.
   * @param count how many
   */
  openRows?(count: number, options?: RowsOptions): Promise<DecodingRows>;
  /** Reads and writes files of states, where the model has a place for what tells it from others. */
  readonly state_files?: StateFiles;
  /** How many tokens per decode() call are worth while on this device (1 on a CPU). */
  readonly preferred_block?: number;
  /** The same while somebody reads along. Default: one for the first token, then eight. */
  readonly streamed_block?: number;
}
