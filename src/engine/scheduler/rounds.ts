/** Rounds of a scheduler: who has a row, whose prompt is read, who gives way; until there is nothing to do. */
import { letOthersRun } from '../../base/async.js';
import { DisposedError } from '../../base/errors.js';
import type { DecodingRows } from '../../generation/decoding_rows.js';
import { onGpu } from '../../runtime/index.js';
import { freshSeed } from '../../generation/random.js';
import { runBeside } from './beside.js';
import { Blocks } from './blocks.js';
import { SchedulerClosedError } from './errors.js';
import type { Job } from './job.js';
import { Choice } from './job.js';
import { type Known } from './plan.js';
import { caches, marksOf, type Parts, Prompts, type ReadPrompt } from './prompts.js';
import { FairQueue } from './queue.js';
import { SharedState } from './shared_state.js';
import { StateRows } from './state_rows.js';

/** Tokens between two looks at the queue where nothing is said. */
const BLOCK = { gpu: 16, cpu: 8 } as const;
/** Requests that run beside the rows at once. */
const MOST_BESIDE = 1;

/** How rounds go; see SchedulerOptions. */
export interface RoundOptions {
  readonly rows: number;
  readonly row_sizes: readonly number[] | undefined;
  readonly block: number | undefined;
  readonly prompt_tokens: number;
  readonly slice: number | null;
  readonly readers: number | undefined;
  readonly device_bytes: number | null | undefined;
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
    this.prompts = new Prompts(parts, options.prompt_tokens, (read) => this.promptsRead(read), failed);
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
    const {
      rows,
      row_sizes,
      block = Math.min(onGpu() ? BLOCK.gpu : BLOCK.cpu, engine.preferred_block ?? Infinity),
      readers,
      device_bytes,
    } = this.options;
    const options = { block, sizes: row_sizes, readers, device_bytes };
    const own = (await engine.openRows?.(rows, options)) ?? new StateRows(engine, rows, block);
    this.parts.cache.over(() => own.places);
    return (this.rows = own);
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
        const running = (): Choice[] => this.holders.filter((holder) => holder?.kind === 'choice');
        moved = await this.prompts.readPieces(rows, running().length);
        const choices = running();
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
      else await this.seat([next]);
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
      await this.parts.cache.makePlaces(1);
      const [state] = await this.rows!.lift([row]);
      victim.state = new SharedState(state!);
      victim.row = null;
    } else this.prompts.leave(victim);
    this.free(row);
    if (victim.priority < next.priority) this.queue.putBack(victim);
    else this.queue.push(victim);
    this.parts.tally.preempted(victim.kind === 'choice' ? victim.job : victim);
    return true;
  }

  /** Puts texts into the rows that are held for them. @throws DisposedError */
  private async seat(choices: readonly Choice[]): Promise<void> {
    const seats = choices.map((choice) => ({ row: this.holders.indexOf(choice), state: choice.state!.state }));
    try {
      await this.rows!.seat(seats);
    } catch (error) {
      for (const { job } of choices) this.fail(job, error);
      if (error instanceof DisposedError) throw error;
      return;
    }
    for (const [i, choice] of choices.entries()) {
      choice.release();
      choice.row = seats[i]!.row;
      choice.since = 0;
    }
  }

  /** Prompts are read: their choices follow, the first of each in the row that was held for it. @param read states, which are taken over */
  private async promptsRead(read: readonly ReadPrompt[]): Promise<void> {
    const seated: Choice[] = [];
    for (const { job, state } of read) {
      try {
        const first = this.choicesOf(job, state);
        if (first) seated.push(first);
      } catch (error) {
        this.fail(job, error);
      } finally {
        state.release();
      }
    }
    if (seated.length > 0) await this.seat(seated);
  }

  /** A prompt is read. @returns the choice that has the row which was held for it; null where nothing is to be written */
  private choicesOf(job: Job, state: SharedState): Choice | null {
    const row = this.holders.indexOf(job);
    this.holders[row] = null;
    const { plan, only } = job.work;
    const lasting = only !== null || marksOf(this.parts, job).includes(job.ids!.length);
    if (caches(this.parts, job)) this.parts.cache.insert(job.ids!, state, lasting);
    if (only) {
      this.settle(job);
      only.done(job.ids!, state.hold());
      return null;
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
    return first;
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
