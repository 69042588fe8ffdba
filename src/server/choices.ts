/** Runs the prompts of a request, and gives the text of their choices as it comes. */
import type { FinishReason } from '../generation/index.js';
import type { Scheduled, TokenEvent, TokenLogprobs } from '../engine/scheduler/types.js';
import type { Asker } from './asker.js';
import { ChoiceText } from './choice_text.js';
import type { ServerContext } from './context.js';
import { shuttingDown } from './errors.js';
import { type Sampling, stopsOf } from './sampling.js';
import type { GenerationBody } from './bodies.js';

/** Some text of one choice. */
export interface ChoiceEvent {
  /** Number of the choice in the request: prompt by prompt. */
  index: number;
  text: string;
  logprobs: TokenLogprobs[];
  finish_reason: 'stop' | 'length' | null;
}

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
  prompt_tokens_details: { cached_tokens: number };
}

export class Choices {
  private constructor(
    private readonly context: ServerContext,
    private readonly asker: Asker,
    private readonly prompts: readonly (readonly number[])[],
    private readonly jobs: readonly Scheduled[],
    /** Rows of each job, and choices that each row is: greedy ones are all the same text. */
    private readonly rows: number,
    private readonly copies: number,
    private readonly stops: readonly string[],
  ) {}

  /** Hands the prompts to the scheduler. @throws what it refuses them with; then none of them runs */
  static submit(
    context: ServerContext,
    asker: Asker,
    prompts: readonly (readonly number[])[],
    sampling: Sampling,
    body: GenerationBody,
  ): Choices {
    asker.throwIfAborted();
    const jobs: Scheduled[] = [];
    const client = body.user ?? asker.session(body.prompt_cache_key) ?? undefined;
    const n = sampling.num_return_sequences ?? 1;
    const greedy = sampling.do_sample === false;
    const rows = greedy ? 1 : n;
    try {
      for (const input_ids of prompts)
        jobs.push(
          context.scheduler.submit({
            ...sampling,
            num_return_sequences: rows,
            ...(client !== undefined && { client }),
            input_ids,
            signal: asker.signal,
          }),
        );
    } catch (error) {
      for (const job of jobs) job.abort();
      throw error;
    }
    // failures are told by the events; nobody may be left to hear them here
    for (const job of jobs) job.result.catch(() => undefined);
    return new Choices(context, asker, prompts, jobs, rows, n / rows, stopsOf(body));
  }

  /** The text of all choices as it comes; each has one event with a finish reason, its last. */
  async *events(): AsyncGenerator<ChoiceEvent, void, undefined> {
    const { tokenizer } = this.context.settings;
    const texts = await Promise.all(
      this.prompts.flatMap((ids) =>
        Array.from({ length: this.rows }, () => ChoiceText.after(tokenizer, ids, this.stops)),
      ),
    );
    try {
      for await (const [job, event] of merged(this.jobs)) {
        const row = job * this.rows + event.choice;
        const text = texts[row]!;
        const piece = await text.push(event.ids, event.logprobs);
        if (event.finish_reason === null) {
          if (piece.text !== '' || piece.logprobs.length) yield* this.each(row, { ...piece, finish_reason: null });
          continue;
        }
        if (event.finish_reason === 'abort') throw this.aborted();
        const rest = await text.end();
        yield* this.each(row, {
          text: piece.text + rest.text,
          logprobs: [...piece.logprobs, ...rest.logprobs],
          finish_reason: text.stopped ? 'stop' : reasonOf(event.finish_reason),
        });
      }
    } finally {
      for (const job of this.jobs) job.abort();
    }
  }

  private *each(row: number, event: Omit<ChoiceEvent, 'index'>): Generator<ChoiceEvent, void, undefined> {
    for (let copy = 0; copy < this.copies; copy++) yield { index: row * this.copies + copy, ...event };
  }

  get usage(): Usage {
    const sum = (count: (job: Scheduled) => number): number => this.jobs.reduce((total, job) => total + count(job), 0);
    const prompt_tokens = sum(({ usage }) => usage.prompt_tokens);
    const completion_tokens = this.copies * sum(({ usage }) => usage.completion_tokens);
    const cached_tokens = sum(({ usage }) => usage.cached_tokens);
    return {
      prompt_tokens,
      completion_tokens,
      total_tokens: prompt_tokens + completion_tokens,
      prompt_tokens_details: { cached_tokens },
    };
  }

  /** Id of the state after the first choice, where it was asked for. */
  async state(): Promise<string | null> {
    return (await this.jobs[0]!.result).state;
  }

  private aborted(): unknown {
    const { signal } = this.asker;
    return signal.aborted ? signal.reason : shuttingDown();
  }
}

function reasonOf(reason: FinishReason): 'stop' | 'length' {
  return reason === 'length' || reason === 'time' ? 'length' : 'stop';
}

/** Events of several jobs in the order in which they come, each with the number of its job. */
async function* merged(jobs: readonly Scheduled[]): AsyncGenerator<readonly [number, TokenEvent], void, undefined> {
  const iterators = jobs.map((job) => job[Symbol.asyncIterator]());
  const next = (at: number): Promise<{ at: number; result: IteratorResult<TokenEvent> }> =>
    iterators[at]!.next().then((result) => ({ at, result }));
  const waiting = new Map(jobs.map((_, at) => [at, next(at)] as const));
  try {
    while (waiting.size > 0) {
      const { at, result } = await Promise.race(waiting.values());
      if (result.done) {
        waiting.delete(at);
        continue;
      }
      waiting.set(at, next(at));
      yield [at, result.value];
    }
  } finally {
    // those that fail beside the one that is told
    for (const each of waiting.values()) each.catch(() => undefined);
    for (const iterator of iterators) void iterator.return?.();
  }
}
