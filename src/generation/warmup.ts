/** Compiling beforehand what calls will run. */
import { letOthersRun } from '../base/async.js';
import * as kinds from '../base/option_kinds.js';
import { type OptionRules, OptionTable } from '../base/options.js';
import type { GenerationConfig } from './config.js';
import type { GenerationEngine } from './engine.js';
import { generate } from './generate.js';
import type { GenerationOptions } from './options.js';

/** What is to be ready, as warmup() takes it. */
export interface WarmupOptions {
  /** How many texts calls run together (batch_size, or rows). Default [1]. */
  batches?: readonly number[];
  /** Lengths of prompts, in tokens: what reads each of them is made ready. Default: those that the engine has programs for. */
  lengths?: readonly number[];
  /** Stops between programs by throwing its reason. */
  signal?: AbortSignal;
  /** Called as it goes on, with steps done and in all. */
  on_progress?: (done: number, total: number) => void;
}

/** What the warmup() of a model and of a text-generation pipeline takes. */
export interface GenerationWarmupOptions extends WarmupOptions {
  /** Options of the calls to come, such as do_sample. Default: without them, both greedy decoding and sampling are made ready. */
  generation?: GenerationOptions;
}

const counts = kinds.listOf(kinds.integer({ min: 1 }), 'integers of 1 or more', 1);

const RULES: OptionRules<WarmupOptions> = {
  batches: { kind: counts, default: [1] },
  lengths: { kind: counts },
  signal: { kind: kinds.abortSignal },
  on_progress: { kind: kinds.func },
};

/** Options of the warmup() of feature extraction. */
export const WARMUP_TABLE = new OptionTable<WarmupOptions>('extractor.warmup()', RULES, {
  others: { batch_size: 'batches' },
});

const generation = (title: string): OptionTable<GenerationWarmupOptions> =>
  new OptionTable<GenerationWarmupOptions>(
    title,
    { ...RULES, generation: { kind: kinds.object } },
    { others: { batch_size: 'batches' } },
  );

/** Options of the warmup() of text generation. */
export const GENERATION_WARMUP_TABLE = generation('generator.warmup()');

/** Options of the warmup() of a model. */
export const MODEL_WARMUP_TABLE = generation('model.warmup()');

type Step = (engine: GenerationEngine) => Promise<unknown>;

/** Runs the steps one after another, and lets the event loop run between them. */
async function runSteps(
  engine: GenerationEngine,
  steps: readonly Step[],
  { signal, on_progress }: WarmupOptions,
): Promise<void> {
  for (const [at, step] of steps.entries()) {
    signal?.throwIfAborted();
    await step(engine);
    on_progress?.(at + 1, steps.length);
    await letOthersRun();
  }
  signal?.throwIfAborted();
}

const lengthsOf = (engine: GenerationEngine, options: WarmupOptions): readonly number[] =>
  options.lengths ?? engine.segments ?? [1];

/** Rows of the first id of the vocabulary: which ids are read changes nothing. */
const rowsOf = (batch: number, length: number): Int32Array[] =>
  Array.from({ length: batch }, () => new Int32Array(length));

function reading(batch: number, length: number, hidden: boolean): Step {
  return async (engine) => {
    const state = await engine.createState(batch);
    try {
      await engine.prefill(state, rowsOf(batch, length), hidden ? { on_hidden: () => undefined } : {});
    } finally {
      state.dispose();
    }
  };
}

/** Makes ready what reads prompts of these sizes. @param options checked */
export function warmUpReading(engine: GenerationEngine, options: WarmupOptions): Promise<void> {
  const steps = (options.batches ?? [1]).flatMap((batch) =>
    lengthsOf(engine, options).map((length) => reading(batch, length, true)),
  );
  return runSteps(engine, steps, options);
}

/** Makes ready what reads prompts of these sizes and goes on from them. @param options checked */
export function warmUpGeneration(
  engine: GenerationEngine,
  config: GenerationConfig,
  options: GenerationWarmupOptions,
): Promise<void> {
  const calls: GenerationOptions[] = options.generation
    ? [options.generation]
    : [{ do_sample: false }, { do_sample: true }];
  // one token by itself and a whole block of them are programs of their own
  const tokens = (engine.preferred_block ?? 1) + 1;
  const lengths = lengthsOf(engine, options);
  const generating = (batch: number, call: GenerationOptions, streamed: boolean): Step => {
    const ids = rowsOf(batch, Math.min(...lengths));
    const streamer = streamed ? { put: () => undefined, end: () => undefined } : null;
    return () =>
      generate(engine, config, {
        num_return_sequences: 1,
        ...call,
        input_ids: ids.map((row) => Array.from(row)),
        // all text, although the id may be that of padding
        attention_mask: ids.map((row) => Array.from(row, () => 1)),
        max_new_tokens: tokens,
        min_new_tokens: null,
        eos_token_id: null,
        stop_strings: null,
        streamer,
      });
  };
  const steps = (options.batches ?? [1]).flatMap((batch) => [
    ...lengths.map((length) => reading(batch, length, false)),
    ...calls.flatMap((call) =>
      (call.num_beams ?? 1) > 1
        ? [generating(batch, call, false)]
        : [generating(batch, call, false), generating(batch, call, true)],
    ),
  ]);
  return runSteps(engine, steps, options);
}
