/** Blocks of tokens: what each row shall do, and what becomes of what it said. */
import { DisposedError } from '../../base/errors.js';
import type { DecodingRows, RowTurn } from '../../generation/decoding_rows.js';
import type { Choice, Job } from './job.js';
import { logprobsOf } from './logprobs.js';
import { caches, type Parts } from './prompts.js';
import { SharedState } from './shared_state.js';

export class Blocks {
  /** @param vocab_limit ids from here on pad the vocabulary @param free takes a row back */
  constructor(
    private readonly parts: Parts,
    private readonly vocab_limit: number,
    private readonly free: (row: number) => void,
    private readonly finish: (job: Job) => void,
    private readonly fail: (job: Job, error: unknown) => void,
  ) {}

  /** A block of tokens of all rows that run. @returns whether there was any */
  async decode(rows: DecodingRows, running: readonly Choice[]): Promise<boolean> {
    if (running.length === 0) return false;
    // the first token as soon as there is one
    const single = running.some((choice) => choice.stepwise || choice.count === 0);
    const began = performance.now();
    const turns = new Map<Choice, RowTurn>();
    for (const choice of running) {
      try {
        turns.set(choice, this.turnOf(choice, single ? 1 : rows.block));
      } catch (error) {
        this.fail(choice.job, error);
      }
    }
    // a text takes those of its request with it
    for (const choice of turns.keys()) if (choice.job.settled) turns.delete(choice);
    if (turns.size === 0) return true;
    const outcomes = await rows.decode([...turns.values()]);
    const elapsed = performance.now() - began;
    for (const [i, choice] of [...turns.keys()].entries()) {
      const { job } = choice;
      const { ids, logits, error } = outcomes[i]!;
      if (job.settled) continue;
      try {
        const taken = await choice.take(ids);
        if (error && choice.finish === null) throw error;
        const logprobs = logits && choice.logprobs ? this.logprobs(choice, taken, logits) : null;
        this.parts.tally.tokens(job, choice, taken.length, elapsed);
        if (choice.finish !== null) await this.endChoice(rows, choice, taken.length === ids.length);
        const { index, finish } = choice;
        job.delivery.put({ choice: index, ids: taken, ...(logprobs && { logprobs }), finish_reason: finish });
        if (job.choices.every(({ finish }) => finish !== null)) this.finish(job);
      } catch (failure) {
        this.fail(job, failure);
        if (failure instanceof DisposedError) throw failure;
      }
    }
    return true;
  }

  private turnOf(choice: Choice, block: number): RowTurn {
    const { plan, prompt_length, all, constraint } = choice;
    const { sampling, room } = plan.sampling(choice.count, prompt_length);
    const count = choice.exact ? 1 : Math.min(block, room, choice.limit - choice.count);
    return {
      row: choice.row!,
      count,
      sampling,
      uniforms: choice.uniforms(count),
      ids: all,
      prompt_length,
      ...(constraint && { mask: constraint.mask() }),
      ...(choice.logprobs && { logits: true }),
    };
  }

  private logprobs(choice: Choice, ids: readonly number[], logits: Float32Array): Choice['logprobs'] {
    const top = choice.plan.request.logprobs!;
    const own = ids.map((id) => logprobsOf(logits, this.vocab_limit, id, top));
    choice.logprobs!.push(...own);
    return own;
  }

  /** A text has ended: its row is free. @param exact whether the row's state is the one after its last id */
  private async endChoice(rows: DecodingRows, choice: Choice, exact: boolean): Promise<void> {
    const { job, row } = choice;
    const { plan } = choice;
    const ids = Int32Array.from(choice.all);
    const keep = plan.request.keep_state === true && choice.index === 0;
    if (exact && (keep || (caches(this.parts, job) && this.parts.cache.wants(ids.length)))) {
      const state = new SharedState(await rows.lift(row!));
      try {
        if (caches(this.parts, job)) this.parts.cache.insert(ids, state, true);
        if (keep) job.kept = (await this.parts.kept.keep(ids, state)).id;
      } finally {
        state.release();
      }
    }
    choice.row = null;
    this.free(row!);
  }
}
