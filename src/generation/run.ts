import { buildProcessors } from './build.js';
import type { ResolvedOptions } from './config.js';
import type { EngineState, GenerationEngine } from './engine.js';
import type { Guidance } from './guidance.js';
import type { GenerateInputs, Prompt } from './inputs.js';
import type { LogitsProcessor } from './processors.js';
import type { RandomStream } from './random.js';
import { EosTokenCriteria, MaxTimeCriteria, StopStringCriteria } from './stopping.js';
import type { FinishReason, StoppingCriteria } from './stopping.js';

/** One call of generate(), once its inputs are checked and its prompts fed. */
export interface Run {
  readonly engine: GenerationEngine;
  /** Advanced as the run goes on; replaced when rows are reordered or dropped. */
  state: EngineState;
  readonly options: ResolvedOptions;
  readonly inputs: GenerateInputs;
  readonly prompts: readonly Prompt[];
  readonly guidance: Guidance | null;
  /** Criteria for every row, those of the options and the caller's; lengths are kept by the rows themselves. */
  readonly criteria: readonly StoppingCriteria[];
  readonly seed: number;
  readonly vocab_limit: number | undefined;
  /** Whether the state must be exact at the end: every row's last token fed, and nothing after it. */
  readonly keepState: boolean;
  /** Replaces `state`, and disposes of the old one unless it is the caller's. */
  replaceState(next: EngineState): void;
}

/** A row that is being written. */
export interface Row {
  readonly batch_id: number;
  /** The prompt (and what came before it), then the new ids. */
  readonly ids: number[];
  readonly prompt_length: number;
  /** Most new ids. */
  readonly limit: number;
  readonly processors: readonly LogitsProcessor[];
  readonly random: RandomStream | null;
  finish: FinishReason | null;
  /** With a state to keep: its last token is in the state, which must not move on. */
  closed: boolean;
}

/** The number of a prompt's first stream of random numbers, where each prompt has `copies` of them. */
export function streamOf(inputs: GenerateInputs, batch_id: number, copies: number): number {
  const first = inputs.first_stream ?? 0;
  return typeof first === 'number' ? first + batch_id * copies : first[batch_id]!;
}

/** The new ids of a row. */
export const newTokens = (row: Row): number[] => row.ids.slice(row.prompt_length);

/** How many new ids a prompt may get: max_new_tokens, or what max_length leaves, or 20. */
export function limitOf(o: ResolvedOptions, prompt_length: number): number {
  return o.max_new_tokens ?? (o.max_length === null ? 20 : o.max_length - prompt_length);
}

/** The processors of one prompt's rows. */
export function processorsOf(run: Run, batch_id: number): LogitsProcessor[] {
  const { options, inputs, prompts, vocab_limit } = run;
  const prompt_length = prompts[batch_id]!.seen.length;
  return buildProcessors(options, {
    prompt_length,
    max_length: prompt_length + limitOf(options, prompt_length),
    batch_id,
    vocab_limit,
    prefix_allowed_tokens_fn: inputs.prefix_allowed_tokens_fn ?? undefined,
    custom: inputs.logits_processor ?? undefined,
  });
}

/** The criteria that options and caller ask for, in the order in which their reasons are reported. */
export function criteriaOf(options: ResolvedOptions, inputs: GenerateInputs): StoppingCriteria[] {
  const list: StoppingCriteria[] = [];
  if (options.eos_token_id.length > 0) list.push(new EosTokenCriteria(options.eos_token_id));
  if (options.stop_strings.length > 0) list.push(new StopStringCriteria(options.stop_strings, inputs.tokenizer!));
  list.push(...(inputs.stopping_criteria ?? []));
  if (options.max_time !== null) list.push(new MaxTimeCriteria(options.max_time));
  return list;
}

/** Why a row ends after its newest token; null where it goes on. */
export async function finishOf(
  run: Run,
  ids: readonly number[],
  count: number,
  limit: number,
  scores: Float32Array | null,
  row: number,
): Promise<FinishReason | null> {
  let reason: FinishReason | null = null;
  for (const criterion of run.criteria) {
    if ((await criterion.done(ids, scores, row)) && reason === null) reason = criterion.reason ?? 'criteria';
  }
  return reason ?? (count >= limit ? 'length' : null);
}
