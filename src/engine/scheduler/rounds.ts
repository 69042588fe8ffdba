/** Rounds of a scheduler: who has a row, whose prompt is read, who gives way; until there is nothing to do. */
import { letOthersRun } from '../../base/async.js';
import type { DecodingRows } from '../../generation/decoding_rows.js';
import { freshSeed } from '../../generation/random.js';
import { runBeside } from './beside.js';
import { Blocks } from './blocks.js';
import { SchedulerClosedError } from './errors.js';
import type { Job } from './job.js';
import { Choice } from './job.js';
import { type Known } from './plan.js';
import { caches, type Parts, Prompts } from './prompts.js';
import { FairQueue } from './queue.js';
import { SharedState } from './shared_state.js';
import { StateRows } from './state_rows.js';

/** Tokens between two looks at the queue where nothing is said. */
const BLOCK = 8;
/** Requests that run beside the rows at once. */
const MOST_BESIDE = 1;

/** How rounds go; see SchedulerOptions. */
export interface RoundOptions {
  readonly rows: number;
  readonly row_sizes: readonly number[] | undefined;
  readonly block: number | undefined;
  readonly prompt_tokens: number;
  readonly slice: number | null;
}

export class Rounds {
  readonly queue = new FairQueue<Job | Choice>();
  /** All that have not ended. */
  readonly jobs = new Set<Job>();
  /** Who has each row: a choice that runs, or a job whose prompt is being read for it. */
  readonly holders: (Job | Choice | null)[];
  private rows: DecodingRows | null = null;
  private opening: Promise<DecodingRows> | null = null;
  private readonly prompts: Prompts;
  private readonly blocks: Blocks;
  private readonly beside = new Set<Job>();
  private running: Promise<void> | null = null;
  private wake: (() => void) | null = null;
  /** Whether something has changed since the round began. */
  private stirred = false;
  /** Who waits until there are no jobs. */
  private readonly idle: (() => void)[] = [];

  constructor(
    private readonly parts: Parts,
    private readonly known: Known,
    private readonly options: RoundOptions,
  ) {
    this.holders = new Array<null>(options.rows).fill(null);
    const failed = (job: Job, error: unknown): void => this.fail(job, error);
    const free = (row: number): void => this.free(row);
    this.prompts = new Prompts(parts, options.prompt_tokens, (job, state) => this.promptRead(job, state), failed);
    this.blocks = new Blocks(parts, known.vocab_limit, free, (job) => this.finish(job), failed);
  }

  get freeRows(): number {
    return this.holders.filter((holder) => holder === null).length;
  }

  enter(job: Job): void {
    this.jobs.add(job);
    this.queue.push(job);
    this.stir();
  }

  /** Its client left. */
  leave(job: Job): void {
    if (job.settled) return;
    job.aborted = true;
    job.stop.abort();
    this.stir();
  }

  /** When there are no jobs. */
  async whenIdle(): Promise<void> {
    if (this.jobs.size > 0) await new Promise<void>((resolve) => this.idle.push(resolve));
    await this.running;
  }

  close(): void {
    this.rows?.dispose();
    this.rows = this.opening = null;
  }

  private free(row: number): void {
    if (this.holders[row]?.kind === 'choice') this.rows?.vacate(row);
    this.holders[row] = null;
  }

  private stir(): void {
    this.stirred = true;
    this.wake?.();
    this.wake = null;
    if (this.jobs.size > 0) this.running ??= this.run();
  }

  /** The rows of the engine, which are opened once. */
  openRows(): Promise<DecodingRows> {
    this.opening ??= this.open().catch((error: unknown) => {
      this.opening = null;
      throw error;
    });
    return this.opening;
  }

  private async open(): Promise<DecodingRows> {
    const { engine } = this.parts;
    const { rows, row_sizes, block = Math.min(BLOCK, engine.preferred_block ?? BLOCK) } = this.options;
    this.rows = (await engine.openRows?.(rows, block, row_sizes)) ?? new StateRows(engine, rows, block);
    return this.rows;
  }

  /** Runs until there are no jobs. */
  private async run(): Promise<void> {
    while (this.jobs.size > 0) {
      let moved = false;
      this.stirred = false;
      try {
        const rows = await this.openRows();
        this.sweep();
        await this.fill();
        moved = await this.prompts.readPieces();
        const choices = this.holders.filter((holder) => holder?.kind === 'choice');
        moved = (await this.blocks.decode(rows, choices)) || moved;
      } catch (error) {
        this.failAll(error);
      }
      if (this.jobs.size > 0 && !moved && !this.stirred) await new Promise<void>((resolve) => (this.wake = resolve));
      else await letOthersRun();
    }
    this.running = null;
  }

  /** Takes out what was aborted. */
  private sweep(): void {
    for (const job of [...this.jobs]) if (job.aborted && !this.beside.has(job)) this.finish(job);
  }

  /** Gives rows to those who wait. */
  private async fill(): Promise<void> {
    for (;;) {
      const next = this.queue.peek((item) => !this.runsBeside(item) || this.beside.size < MOST_BESIDE);
      if (!next) return;
      if (this.runsBeside(next)) {
        this.queue.take(next);
        this.startBeside(next as Job);
        continue;
      }
      const row = this.holders.indexOf(null);
      if (row < 0) {
        if (!(await this.makeWay(next))) return;
        continue;
      }
      this.queue.take(next);
      this.holders[row] = next;
      if (next.kind === 'job') await this.prompts.admit(next);
      else await this.seat(next, row).catch((error: unknown) => this.fail(next.job, error));
    }
  }

  private runsBeside(item: Job | Choice): boolean {
    return item.kind === 'job' && item.work.plan?.beside === true;
  }

  /** Takes a row from one of a lower priority, or from one of the same that has had its slice. */
  private async makeWay(next: Job | Choice): Promise<boolean> {
    const { slice } = this.options;
    const holders = this.holders.filter((holder) => holder !== null);
    const hadSlice = (item: Job | Choice): boolean => slice !== null && item.kind === 'choice' && item.since >= slice;
    const [victim] = holders
      .filter((item) => item.priority < next.priority || (item.priority === next.priority && hadSlice(item)))
      // of the lowest priority the one that has gone on longest
      .sort((a, b) => a.priority - b.priority || sinceOf(b) - sinceOf(a));
    if (!victim) return false;
    const row = this.holders.indexOf(victim);
    if (victim.kind === 'choice') {
      victim.state = new SharedState(await this.rows!.lift(row));
      victim.row = null;
    } else this.prompts.leave(victim);
    this.free(row);
    if (victim.priority < next.priority) this.queue.putBack(victim);
    else this.queue.push(victim);
    this.parts.tally.preempted(victim.kind === 'choice' ? victim.job : victim);
    return true;
  }

  private async seat(choice: Choice, row: number): Promise<void> {
    await this.rows!.seat(row, choice.state!.state);
    choice.release();
    choice.row = row;
    choice.since = 0;
  }

  /** A prompt is read: its choices follow, the first in the row that was held for it. @param state taken over */
  private async promptRead(job: Job, state: SharedState): Promise<void> {
    const row = this.holders.indexOf(job);
    this.holders[row] = null;
    const { plan, only } = job.work;
    try {
      if (caches(this.parts, job)) this.parts.cache.insert(job.ids!, state, only !== null);
      if (only) {
        this.settle(job);
        only.done(job.ids!, state.hold());
        return;
      }
      const seed = plan.options.seed ?? freshSeed();
      for (let index = 0; index < plan.options.num_return_sequences; index++) {
        const choice = new Choice(job, plan, index, plan.criteria(), seed);
        choice.state = state.hold();
        job.choices.push(choice);
      }
      const [first, ...others] = job.choices as [Choice, ...Choice[]];
      for (const choice of others.reverse()) this.queue.putBack(choice);
      this.holders[row] = first;
      await this.seat(first, row);
    } finally {
      state.release();
    }
  }

  private startBeside(job: Job): void {
    this.beside.add(job);
    const { engine, kept, tally } = this.parts;
    const work = runBeside(engine, job, { known: this.known, kept, tally });
    void work
      .then(
        () => this.finish(job),
        // an abort while the prompt is read is thrown
        (error: unknown) => (job.aborted ? this.finish(job) : this.fail(job, error)),
      )
      .finally(() => {
        this.beside.delete(job);
        this.stir();
      });
  }

  /** All its rows have ended, or it was aborted. */
  private finish(job: Job): void {
    if (job.settled) return;
    this.settle(job);
    const { only } = job.work;
    if (only) return only.failed(new SchedulerClosedError('The reading of a state was aborted.', {}));
    const result = job.result();
    for (const [choice, { finish }] of job.texts().entries())
      if (finish === null) job.delivery.put({ choice, ids: [], finish_reason: 'abort' });
    this.parts.tally.finished(job, result);
    job.delivery.end(result);
  }

  private fail(job: Job, error: unknown): void {
    if (job.settled) return;
    this.settle(job);
    this.parts.tally.failed(job, error);
    job.work.only?.failed(error);
    job.delivery.fail(error);
  }

  private failAll(error: unknown): void {
    for (const job of [...this.jobs]) if (!this.beside.has(job)) this.fail(job, error);
  }

  /** Takes a job out of wherever it is. */
  private settle(job: Job): void {
    job.settled = true;
    job.unlisten();
    this.jobs.delete(job);
    this.queue.take(job);
    this.prompts.leave(job);
    job.reading?.dispose();
    job.reading = null;
    for (const choice of job.choices) {
      this.queue.take(choice);
      choice.release();
      choice.row = null;
    }
    this.holders.forEach((holder, row) => {
      if (holder && (holder === job || (holder.kind === 'choice' && holder.job === job))) this.free(row);
    });
    if (this.jobs.size === 0) for (const tell of this.idle.splice(0)) tell();
  }
}

const sinceOf = (item: Job | Choice): number => (item.kind === 'choice' ? item.since : 0);
