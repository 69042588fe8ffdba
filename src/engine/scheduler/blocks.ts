/** Blocks of tokens: what each row shall do, and what becomes of what it said. */
import { DisposedError } from '../../base/errors.js';
import type { DecodingRows, RowOutcome, RowTurn } from '../../generation/decoding_rows.js';
import type { EngineState } from '../../generation/engine.js';
import type { Choice, Job } from './job.js';
import { logprobsOf } from './logprobs.js';
import { caches, type Parts } from './prompts.js';
import { SharedState } from './shared_state.js';

/** A row's first token comes alone where at least one row in so many waits for one. */
const FRESH = 8;

/** What became of a row's tokens. */
interface Taken {
  readonly choice: Choice;
  readonly ids: number[];
  readonly logprobs: Choice['logprobs'];
  /** Whether the row's state is the one after the last of them. */
  readonly exact: boolean;
}

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
    const fresh = running.filter((choice) => choice.count === 0).length;
    // the first token as soon as there is one; few of many rows wait for a block, since a call of one token costs what a call costs besides
    const single = FRESH * fresh >= running.length || running.some((choice) => choice.stepwise);
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
    const ended: Taken[] = [];
    for (const [i, choice] of [...turns.keys()].entries()) {
      const taken = await this.take(choice, outcomes[i]!, elapsed);
      if (!taken) continue;
      if (choice.finish === null) this.deliver(taken);
      else ended.push(taken);
    }
    if (ended.length > 0) await this.end(rows, ended);
    return true;
  }

  /** What a row said. @returns null where its request has ended, or failed now */
  private async take(choice: Choice, { ids, logits, error }: RowOutcome, elapsed: number): Promise<Taken | null> {
    const { job } = choice;
    if (job.settled) return null;
    try {
      const taken = await choice.take(ids);
      if (error && choice.finish === null) throw error;
      const logprobs = logits && choice.logprobs ? this.logprobs(choice, taken, logits) : null;
      this.parts.tally.tokens(job, choice, taken.length, elapsed);
      return { choice, ids: taken, logprobs, exact: taken.length === ids.length };
    } catch (failure) {
      this.fail(job, failure);
      if (failure instanceof DisposedError) throw failure;
      return null;
    }
  }

  private deliver({ choice, ids, logprobs }: Taken): void {
    const { index, finish, job } = choice;
    job.delivery.put({ choice: index, ids, ...(logprobs && { logprobs }), finish_reason: finish });
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

  /** Texts have ended: their states are kept where that is worth while, and their rows are free. */
  private async end(rows: DecodingRows, ended: readonly Taken[]): Promise<void> {
    const kept = ended.filter((taken) => taken.exact && (keeps(taken.choice) || this.caches(taken.choice)));
    let states: readonly EngineState[] = [];
    try {
      if (kept.length > 0) {
        await this.parts.cache.makePlaces(kept.length);
        states = await rows.lift(kept.map(({ choice }) => choice.row!));
      }
    } catch (error) {
      for (const { choice } of kept) this.fail(choice.job, error);
      if (error instanceof DisposedError) throw error;
    }
    for (const taken of ended) {
      const { choice } = taken;
      const { job } = choice;
      const state = states[kept.indexOf(taken)];
      const shared = state ? new SharedState(state) : null;
      try {
        if (job.settled) continue;
        if (shared) await this.keep(choice, shared);
        const { row } = choice;
        choice.row = null;
        this.free(row!);
        this.deliver(taken);
      } catch (error) {
        this.fail(job, error);
        if (error instanceof DisposedError) throw error;
      } finally {
        shared?.release();
      }
    }
    // all that ended together was told: a request has ended with the last of its texts
    for (const { choice } of ended)
      if (!choice.job.settled && choice.job.choices.every(({ finish }) => finish !== null)) this.finish(choice.job);
  }

  private async keep(choice: Choice, state: SharedState): Promise<void> {
    const ids = Int32Array.from(choice.all);
    if (this.caches(choice)) this.parts.cache.insert(ids, state, true);
    if (keeps(choice)) choice.job.kept = (await this.parts.kept.keep(ids, state)).id;
  }

  /** Whether a snapshot after its text is worth while. */
  private caches({ job, all }: Choice): boolean {
    return caches(this.parts, job) && this.parts.cache.wants(all.length, true);
  }
}

/** Whether the state after its text gets an id. */
const keeps = ({ plan, index }: Choice): boolean => plan.request.keep_state === true && index === 0;
