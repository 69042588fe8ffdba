import { letOthersRun } from '../base/async.js';
import { ArgumentError } from '../base/errors.js';
import * as kinds from '../base/option_kinds.js';
import { type OptionRules, OptionTable } from '../base/options.js';
import type { GenerationEngine } from '../generation/index.js';
import type { Tokenizer } from '../tokenizers/index.js';
import { quote } from '../base/quote.js';
import { batchesOf } from './batches.js';
import type { Loaded } from './load.js';
import { WARMUP_TABLE, type WarmupOptions, warmUpReading } from '../generation/warmup.js';

/** What the pipeline asks of a model: an engine, whose prefill() hands out hidden states. */
export interface FeatureModel {
  engine(): Promise<GenerationEngine>;
  dispose(): void;
}

/** Options of a call. */
export interface FeatureExtractionOptions {
  /** 'none' (default) gives a vector per token; 'mean' their mean; 'last' that of the last token, which has seen them all. */
  pooling?: 'none' | 'mean' | 'last';
  /** Scales pooled vectors to length 1. Default false. */
  normalize?: boolean;
  /** Texts that are run together. Default: the pipeline's, else 1. */
  batch_size?: number;
  /** Adds the tokenizer's special tokens to a text. Default true. */
  add_special_tokens?: boolean;
  /** Cuts texts to max_length tokens. Default false: a text may be of any length. */
  truncation?: boolean;
  /** Most tokens of a text, with truncation. */
  max_length?: number;
  /** Texts are read in pieces of at most this many tokens, between which the event loop runs. Default: the engine's own. */
  prefill_chunk_size?: number;
  /** Stops between pieces by throwing its reason. */
  signal?: AbortSignal;
  /** Called after each batch of texts with texts done and in all. */
  on_progress?: (done: number, total: number) => void;
}

const FIRST = "the first token has seen no other: the model reads from left to right. Take pooling: 'last'";

const RULES: OptionRules<FeatureExtractionOptions> = {
  pooling: {
    kind: kinds.named(
      `'none', 'mean' or 'last' (for 'cls' and 'first_token': ${FIRST})`,
      kinds.oneOf('none', 'mean', 'last'),
    ),
    default: 'none',
  },
  normalize: { kind: kinds.boolean, default: false },
  batch_size: { kind: kinds.integer({ min: 1 }) },
  add_special_tokens: { kind: kinds.boolean, default: true },
  truncation: { kind: kinds.boolean, default: false },
  max_length: { kind: kinds.integer({ min: 1 }) },
  prefill_chunk_size: { kind: kinds.integer({ min: 1 }) },
  signal: { kind: kinds.abortSignal },
  on_progress: { kind: kinds.func },
};

/** Options of the calls of a feature-extraction pipeline. */
const FEATURE_EXTRACTION_TABLE = new OptionTable<FeatureExtractionOptions>('The feature-extraction pipeline', RULES, {
  others: {
    return_tensors: { why: 'lists of numbers are returned; tf.tensor() makes a tensor of them', off: [false, null] },
    tokenize_kwargs: { why: 'pass truncation, max_length and add_special_tokens beside the others' },
    padding: { why: 'texts are padded as batches need it, which changes nothing', off: [true, false] },
    quantize: { why: 'vectors are returned in float32', off: [false] },
    precision: { why: 'vectors are returned in float32' },
    abort_signal: 'signal',
  },
  clashes: [
    {
      option: 'normalize',
      when: ({ normalize, pooling }) => normalize === true && (pooling ?? 'none') === 'none',
      why: "which has no effect with pooling 'none': it scales pooled vectors",
    },
    {
      option: 'max_length',
      when: ({ truncation }) => truncation !== true,
      why: 'which has no effect without truncation: true',
    },
  ],
});

/** pipeline('feature-extraction', …): the hidden states after the last norm. */
export interface FeatureExtractionPipeline {
  /** Per text and token a vector of hidden_size numbers; one text gives a list of one. */
  (texts: string | readonly string[], options?: FeatureExtractionOptions & { pooling?: 'none' }): Promise<number[][][]>;
  /** Per text one vector. */
  (
    texts: string | readonly string[],
    options: FeatureExtractionOptions & { pooling: 'mean' | 'last' },
  ): Promise<number[][]>;
  readonly task: 'feature-extraction';
  readonly model: FeatureModel;
  readonly tokenizer: Tokenizer;
  /**
   * Compiles what calls with these batch sizes and lengths of texts will run, so that the first of them is as fast as all.
   * @throws ArgumentError for a wrong option; the signal's reason
   */
  warmup(options?: WarmupOptions): Promise<void>;
  /** Disposes of the model, if the pipeline loaded it. */
  dispose(): void;
}

/** Makes the function that pipeline('feature-extraction', …) returns. */
export function featureExtractionPipeline(loaded: Loaded<FeatureModel>): FeatureExtractionPipeline {
  const { model, tokenizer, owned } = loaded;
  const call = async (
    input: string | readonly string[],
    options: FeatureExtractionOptions = {},
  ): Promise<number[][][] | number[][]> => {
    FEATURE_EXTRACTION_TABLE.check(options);
    const { signal, batch_size = loaded.batch_size, on_progress } = options;
    signal?.throwIfAborted();
    const rows = await encode(tokenizer, textsOf(input), options);
    const engine = await model.engine();
    const found = rows.map(() => new Collector(options.pooling ?? 'none', options.normalize ?? false));
    let done = 0;
    for (const batch of batchesOf(
      rows.map((row) => row.length),
      batch_size,
    )) {
      const read = batch.map((i) => rows[i]!);
      await readBatch(engine, read, options, (row, hidden, tokens) => found[batch[row]!]!.add(hidden, tokens));
      done += batch.length;
      on_progress?.(done, rows.length);
    }
    return found.map((each) => each.value()) as number[][][] | number[][];
  };
  const warmup = async (options: WarmupOptions = {}): Promise<void> => {
    WARMUP_TABLE.check(options);
    return warmUpReading(await model.engine(), options);
  };
  const parts = {
    task: 'feature-extraction' as const,
    model,
    tokenizer,
    warmup,
    dispose: () => owned && model.dispose(),
  };
  return Object.assign(call, parts) as unknown as FeatureExtractionPipeline;
}

/** @throws ArgumentError for what is neither a text nor a list of texts */
function textsOf(input: unknown): readonly string[] {
  if (typeof input === 'string') return [input];
  if (Array.isArray(input) && input.length > 0 && input.every((text) => typeof text === 'string')) return input;
  throw new ArgumentError(
    `The feature-extraction pipeline got ${quote(input)}; expected a text, or a list of at least one text.`,
    { got: input },
  );
}

/** Ids of each text. @throws ArgumentError for a text without any */
async function encode(
  tokenizer: Tokenizer,
  texts: readonly string[],
  { add_special_tokens, truncation, max_length }: FeatureExtractionOptions,
): Promise<Int32Array[]> {
  const given = { add_special_tokens, truncation, max_length };
  const rows = await Promise.all(texts.map((text) => tokenizer.encode(text, given)));
  const empty = rows.findIndex((row) => row.length === 0);
  if (empty >= 0)
    throw new ArgumentError(`Text ${empty} is empty: it has no tokens to take features of.`, { index: empty });
  return rows.map((row) => Int32Array.from(row));
}

/** Reads texts together, each row its own; `take` gets the hidden states [tokens, d] of a row as they come. */
async function readBatch(
  engine: GenerationEngine,
  rows: readonly Int32Array[],
  { signal, prefill_chunk_size }: FeatureExtractionOptions,
  take: (row: number, hidden: Float32Array, tokens: number) => void,
): Promise<void> {
  const longest = Math.max(...rows.map((row) => row.length));
  const size = prefill_chunk_size ?? longest;
  const state = await engine.createState(rows.length);
  try {
    for (let at = 0; at < longest; at += size) {
      const piece = rows.map((row) => row.subarray(Math.min(at, row.length), at + size));
      await engine.prefill(state, piece, {
        signal,
        on_hidden: (row, hidden, _at, tokens) => take(row, hidden, tokens),
      });
      // so that an abort is seen between pieces
      await letOthersRun();
      signal?.throwIfAborted();
    }
  } finally {
    state.dispose();
  }
}

/** Takes the hidden states of a text piece by piece, and keeps what pooling needs of them. */
class Collector {
  private readonly vectors: number[][] = [];
  private sum: number[] | null = null;
  private tokens = 0;

  constructor(
    private readonly pooling: 'none' | 'mean' | 'last',
    private readonly normalize: boolean,
  ) {}

  /** @param hidden [tokens, d] */
  add(hidden: Float32Array, tokens: number): void {
    const d = hidden.length / tokens;
    const vector = (t: number): number[] => Array.from(hidden.subarray(t * d, (t + 1) * d));
    this.tokens += tokens;
    if (this.pooling === 'last') this.sum = vector(tokens - 1);
    else if (this.pooling === 'none') for (let t = 0; t < tokens; t++) this.vectors.push(vector(t));
    else {
      this.sum ??= new Array<number>(d).fill(0);
      for (let at = 0; at < hidden.length; at++) this.sum[at % d]! += hidden[at]!;
    }
  }

  value(): number[][] | number[] {
    if (this.pooling === 'none') return this.vectors;
    const divisor = this.pooling === 'mean' ? this.tokens : 1;
    const pooled = this.sum!.map((value) => value / divisor);
    return this.normalize ? normalized(pooled) : pooled;
  }
}

function normalized(vector: readonly number[]): number[] {
  const length = Math.hypot(...vector);
  return vector.map((v) => v / (length || 1));
}
