/** What is asked of a scheduler, and what it gives. */
import type { Tokenizer } from '../../tokenizers/index.js';
import type {
  FinishReason,
  GenerationConfig,
  GenerationOptions,
  LogitsProcessor,
  PrefixAllowedTokens,
  StateArrays,
  StoppingCriteria,
} from '../../generation/index.js';

/**
 * Which ids may come next, token by token: a grammar, for one row. A row with one goes on token by token, with all others
 * beside it. It lives on the host, so that it stays with a row that is preempted.
 */
export interface TokenConstraint {
  /**
   * Asked before each token: bit id & 31 of word id >>> 5 is 1 where the id may come. At least vocab_size bits rounded up to
   * words; ids beyond are left out. The array may be the constraint's own and change at the next call. null where all may come.
   */
  mask(): Int32Array | null;
  /** Told each id that was chosen. true ends the row, with finish reason 'criteria'. */
  accept(id: number): boolean;
}

/** Options of generate() that say what it returns: a scheduler gives events, and a result. */
export type Returned = 'return_dict_in_generate' | 'output_scores' | 'output_logits';

/**
 * One prompt and how to go on from it. Options of generation_config.json are those of generate(), with the same meanings:
 * one prompt alone in generate() gives the same ids. What the rows of a program cannot do (num_beams, guidance_scale,
 * processors, no_repeat_ngram_size, …) runs beside them, correct if slower.
 */
export interface ScheduledRequest extends Omit<GenerationOptions, Returned> {
  /** The prompt, without padding. May be empty after `state`. */
  input_ids: ArrayLike<number>;
  /** Subtracted from the score of each id that was chosen before. Default 0. */
  presence_penalty?: number;
  /** Subtracted from the score of each id as often as it was chosen before. Default 0. */
  frequency_penalty?: number;
  /** Added to the scores of ids: [[id, bias], …]. -Infinity for never. */
  logit_bias?: readonly (readonly [id: number, bias: number])[];
  /** The grammar of each of the rows. @param choice its number, from 0 to num_return_sequences - 1 */
  constraint?: (choice: number) => TokenConstraint;
  /** Log-probabilities of the chosen ids and of so many of the best (0 to 20), by the model's own logits. Default null: none. */
  logprobs?: number | null;
  /** Needed by stop_strings. Default: the scheduler's. */
  tokenizer?: Tokenizer | null;
  stopping_criteria?: readonly StoppingCriteria[] | null;
  logits_processor?: readonly LogitsProcessor[] | null;
  prefix_allowed_tokens_fn?: PrefixAllowedTokens | null;

  /** Higher goes first, and takes the row of a lower one. Default 0. */
  priority?: number;
  /** Whose it is: those of one priority take turns by this name. Default: all are one's. */
  client?: string;
  /** The client left: frees the rows within a block. What there is of the answer stays, with finish reason 'abort'. */
  signal?: AbortSignal | null;

  /** A kept state to go on from, by its id (see KeptStates); input_ids are then what comes after it. The state stays as it is. */
  state?: string | null;
  /** Keeps the state after the answer under an id of its own (Scheduled.state): of the first row, up to its last id. Default false. */
  keep_state?: boolean;
  /**
   * Counts of ids of the prompt after which a snapshot is worth while, as after each message of a chat. Default: none but the
   * end of the prompt and the end of the answer.
   */
  marks?: readonly number[];
  /** Whether prefixes are looked up and kept. Default true. */
  cache?: boolean;
}

/** An id and its log-probability. */
export interface TokenLogprob {
  id: number;
  logprob: number;
}

/** Of one chosen id. */
export interface TokenLogprobs extends TokenLogprob {
  /** The best ids, best first. */
  top: TokenLogprob[];
}

/** Some new ids of one row. */
export interface TokenEvent {
  /** Which of the num_return_sequences rows. */
  choice: number;
  /** In order; the end token included. May be empty with a finish reason. */
  ids: number[];
  /** Of each of the ids, where the request asked. */
  logprobs?: TokenLogprobs[];
  /** Why the row ended; null where it goes on. Each row has one event with a reason, its last. */
  finish_reason: FinishReason | null;
}

/** Counts of a request. */
export interface ScheduledUsage {
  /** Ids of the prompt, those of `state` included. */
  prompt_tokens: number;
  /** How many of them were not read, since a snapshot had them. */
  cached_tokens: number;
  /** New ids of all rows. */
  completion_tokens: number;
}

/** Milliseconds of a request, from submit(). */
export interface ScheduledTimes {
  /** Until its prompt began to be read. */
  queued: number;
  /** Until the first new id; null where there was none. */
  first_token: number | null;
  total: number;
}

/** What a request gave, once all its rows have ended. */
export interface ScheduledResult {
  choices: { ids: number[]; logprobs?: TokenLogprobs[]; finish_reason: FinishReason }[];
  usage: ScheduledUsage;
  times: ScheduledTimes;
  /** How often its rows gave way to others. */
  preemptions: number;
  /** Id of the state after the answer, with keep_state. */
  state: string | null;
}

/**
 * A request that was taken. Its events may be iterated once, or not at all: `result` comes all the same. Events wait for a slow reader, and
 * the rows go on. Who leaves the iteration before its end aborts the request.
 */
export interface Scheduled extends AsyncIterable<TokenEvent> {
  readonly id: string;
  /** Rejects with what went wrong: the iteration throws the same. An abort is no failure. */
  readonly result: Promise<ScheduledResult>;
  /** As far as it is known now: prompt and cached tokens once the prompt was looked up. */
  readonly usage: ScheduledUsage;
  /** As the signal of the request. */
  abort(): void;
}

/** Budgets of the state cache. */
export interface StateCacheOptions {
  /**
   * Snapshots that stay in the program, in bytes, which are taken at once. Default: on a GPU as many as there are rows, within
   * an eighth of its memory; on a CPU twice as many, within a sixteenth of all memory.
   */
  device_bytes?: number;
  /** Snapshots in memory of the host, in bytes. Default: an eighth of all memory. */
  host_bytes?: number;
  /**
   * Ids from which the end of a prompt gets a snapshot although nobody marked it: fewer are sooner read anew, in one call, than copied and looked
   * after. Ends of answers, marks and kept states do not ask for it. Never fewer than 16. Default: 128 on a GPU, 16 on a CPU.
   */
  prompt_end_tokens?: number;
  /**
   * Ids from which a snapshot that has to leave the device, where device_bytes are full, goes to the host; a shorter one is dropped, since its ids are
   * read anew in less time than a state takes to the host and back. Default: 1024 on a GPU, 256 on a CPU.
   */
  host_tokens?: number;
  /** Folder of snapshots that outlive the process; several servers of one model may share it. Made when missing. Default: none. */
  folder?: string | null;
  /** Of the files in that folder, in bytes: those unused longest go. Default 16 GiB. */
  folder_bytes?: number;
}

/** How a scheduler runs. */
export interface SchedulerOptions {
  /** Rows that run at once. Default 8. */
  rows?: number;
  /** Fewer rows that the program has, too, for when few run; each takes memory and is compiled. Default: 1, 2, 4, … on a CPU, none on a GPU. */
  row_sizes?: readonly number[];
  /** Most tokens that rows run between two looks at the queue. Default: 8 on a CPU, 16 on a GPU, at most what the engine prefers. */
  block?: number;
  /** Requests that may wait; more are refused (QueueFullError). Default 256. */
  queue?: number;
  /**
   * Most ids of prompts that are read between two blocks; as many times so many, 8 at most, as there are prompts to be read for each row that runs.
   * Default: the engine's longest segment, 512 on a CPU and 2,048 on a GPU.
   */
  prompt_tokens?: number;
  /** Prompts of like length that are read together, each in a state of its own besides those of rows; 1 for none. Default: 16 on a GPU, within a sixteenth of its memory; 8 on a CPU, within a 32nd. */
  readers?: number;
  /** Tokens after which a row gives way to others of its priority that wait. Default null: rows run to their end. */
  slice?: number | null;
  /** Prefix cache and kept states; false for no snapshots of prefixes. */
  state_cache?: StateCacheOptions | false;
  /** Options that requests start from: the model's. */
  generation_config?: GenerationConfig | GenerationOptions | null;
  /** For stop_strings, and for vocab_limit. */
  tokenizer?: Tokenizer | null;
  /** Ids from here on pad the vocabulary and are never chosen. Default: the tokenizer's vocab_size. */
  vocab_limit?: number | null;
  /** Told what happens, at once; what it throws is ignored. */
  on_event?: (event: SchedulerEvent) => void;
}

/** What a scheduler compiles beforehand. */
export interface SchedulerWarmupOptions {
  /** What requests with a constraint or logprobs need, too: about as much again. Default false. */
  stepwise?: boolean;
}

/** What a scheduler tells as it happens. */
export type SchedulerEvent =
  | { kind: 'submitted' | 'refused'; id: string }
  /** A prompt was looked up, and begins to be read. @param milliseconds since submit() */
  | { kind: 'admitted'; id: string; milliseconds: number; prompt_tokens: number; cached_tokens: number }
  /** Milliseconds since submit(). */
  | { kind: 'first_token'; id: string; milliseconds: number }
  /** Further tokens of one row. Milliseconds of one of them, mean of a block. */
  | { kind: 'tokens'; id: string; count: number; milliseconds: number }
  | { kind: 'preempted'; id: string }
  | { kind: 'finished'; id: string; result: ScheduledResult }
  | { kind: 'failed'; id: string; error: unknown };

/** A scheduler at one moment, and its sums since it began. */
export interface SchedulerMetrics {
  /** Rows, and how many are taken. */
  rows: number;
  rows_running: number;
  /** Requests: with a row or whose prompt is being read; in the queue (preempted ones too); the most that may wait. */
  running: number;
  waiting: number;
  queue: number;
  /** Sums. */
  submitted: number;
  refused: number;
  finished: number;
  failed: number;
  aborted: number;
  preemptions: number;
  prompt_tokens: number;
  cached_tokens: number;
  completion_tokens: number;
  cache: StateCacheMetrics;
}

export interface StateCacheMetrics {
  /** Prompts that were looked up, and those that had a snapshot of a prefix. */
  queries: number;
  hits: number;
  /** Snapshots on a device with memory of its own; null where there is none. */
  device: { entries: number; bytes: number; budget: number } | null;
  /** Snapshots in memory of the host, with all kept states; a snapshot of the folder that is in memory too counts there. */
  host: { entries: number; bytes: number; budget: number };
  folder: { entries: number; bytes: number; budget: number } | null;
  evictions: number;
}

/** A state that somebody keeps by an id: never evicted, deleted by delete() alone. It does not change. */
export interface KeptState {
  readonly id: string;
  /** Ids that were read. */
  readonly tokens: number;
  readonly bytes: number;
  /** Milliseconds since 1970. */
  readonly created: number;
}

/**
 * States by ids of their own; with a folder they outlive the process, and other servers of that folder know them. Without one they count in
 * host_bytes, and where they fill it no more are kept (StatesFullError).
 */
export interface KeptStates {
  /** Reads ids and keeps the state after them. Waits in the queue as a request does. @param from goes on from this kept state */
  create(
    input_ids: ArrayLike<number>,
    options?: { from?: string | null; priority?: number; client?: string; signal?: AbortSignal | null },
  ): Promise<KeptState>;
  get(id: string): Promise<KeptState | null>;
  list(): Promise<KeptState[]>;
  /** The ids that were read. @throws UnknownStateError */
  ids(id: string): Promise<number[]>;
  /** Values and ids, to be written to a file. @throws UnknownStateError */
  read(id: string): Promise<{ arrays: StateArrays; ids: number[] }>;
  /** Keeps what read() gave, of this model. @throws ArgumentError for a state of another size */
  add(state: { arrays: StateArrays; ids: readonly number[] }): Promise<KeptState>;
  /** The same state under one more id. @throws UnknownStateError */
  fork(id: string): Promise<KeptState>;
  /** Whether there was one. */
  delete(id: string): Promise<boolean>;
}

/** Many requests at once over one engine: new Scheduler(engine, options). */
export interface RequestScheduler {
  /**
   * Takes a request, or refuses it at once.
   * @throws GenerationError or ArgumentError for options and ids, by name; QueueFullError; SchedulerClosedError after drain() or close();
   *   UnknownStateError comes by way of the result
   */
  submit(request: ScheduledRequest): Scheduled;
  readonly states: KeptStates;
  metrics(): SchedulerMetrics;
  /** Compiles what requests will need, so that the first does not wait for it. */
  warmup(options?: SchedulerWarmupOptions): Promise<void>;
  /**
   * Takes no more requests and waits for those that there are; after `milliseconds` the rest are aborted, which leaves what they have. Snapshots
   * that belong in the folder are then written. Ends with close().
   */
  drain(milliseconds?: number): Promise<void>;
  /** Aborts what runs and waits, and frees all. The engine stays. Idempotent. */
  close(): Promise<void>;
}
