/** Prompts: looked up, and read in pieces between blocks of tokens. */
import { DisposedError } from '../../base/errors.js';
import type { GenerationEngine } from '../../generation/engine.js';
import type { Job } from './job.js';
import type { StateKeep } from './kept_states.js';
import { SharedState } from './shared_state.js';
import type { StateCache } from './state_cache.js';
import type { Tally } from './tally.js';

/** Ids of a prompt that are not worth a call of their own while others wait for it. */
const SMALL_PIECE = 64;

/** What those who work on requests share. */
export interface Parts {
  readonly engine: GenerationEngine;
  readonly tally: Tally;
  readonly cache: StateCache;
  readonly kept: StateKeep;
  /** Whether snapshots of prefixes are looked up and kept at all. */
  readonly useCache: boolean;
}

/** Whether a job's prefixes are looked up and kept. */
export const caches = ({ useCache }: Parts, { work }: Job): boolean => useCache && work.plan?.request.cache !== false;

export class Prompts {
  /** Those that are being read; the next piece is the first one's. */
  private reading: Job[] = [];

  /**
   * @param pieces ids that are read between two blocks, at most
   * @param read takes over the state after a whole prompt
   */
  constructor(
    private readonly parts: Parts,
    private readonly pieces: number,
    private readonly read: (job: Job, state: SharedState) => Promise<void>,
    private readonly failed: (job: Job, error: unknown) => void,
  ) {}

  /** It gave way or is no more; what was read of it stays with the job. */
  leave(job: Job): void {
    this.reading = this.reading.filter((one) => one !== job);
  }

  /** Looks a prompt up, and begins to read what is not known of it. */
  async admit(job: Job): Promise<void> {
    if (job.reading) {
      this.reading.push(job); // gave way before
      return;
    }
    try {
      const from = await this.begin(job);
      const ids = job.ids!;
      job.queued = job.milliseconds;
      Object.assign(job.delivery.usage, { prompt_tokens: ids.length, cached_tokens: from?.length ?? 0 });
      this.parts.tally.admitted(job);
      if (from?.length === ids.length) return await this.read(job, from.state);
      job.read = from?.length ?? 0;
      try {
        job.reading = from ? await from.state.state.clone() : await this.parts.engine.createState(1);
      } finally {
        from?.state.release();
      }
      this.reading.push(job);
    } catch (error) {
      this.failed(job, error);
    }
  }

  /** The longest prefix that is known: a snapshot, or the kept state that the request goes on from. */
  private async begin(job: Job): Promise<{ length: number; state: SharedState } | null> {
    const { plan, only } = job.work;
    const kept = plan ? plan.request.state : only.from;
    const own = plan?.input_ids ?? only!.input_ids;
    const before = kept == null ? null : await this.parts.kept.open(kept);
    job.ids = before ? Int32Array.from([...before.ids, ...own]) : own;
    const found = caches(this.parts, job) ? await this.lookup(job.ids, before?.state) : null;
    if (!before) return found;
    if (found && found.length > before.ids.length) {
      before.state.release();
      return found;
    }
    found?.state.release();
    return { length: before.ids.length, state: before.state };
  }

  /** @param held let go of where this fails */
  private async lookup(ids: Int32Array, held?: SharedState): ReturnType<StateCache['lookup']> {
    try {
      return await this.parts.cache.lookup(ids);
    } catch (error) {
      held?.release();
      throw error;
    }
  }

  /** Pieces of prompts, up to so many ids in all. @returns whether there was any */
  async readPieces(): Promise<boolean> {
    let left = this.pieces;
    let moved = false;
    while (this.reading.length > 0 && left > 0) {
      const job = this.reading[0]!;
      const ids = job.ids!;
      const marks = caches(this.parts, job) ? this.marksOf(job) : [];
      const wanted = job.nextStop(marks) - job.read;
      if (moved && left < Math.min(wanted, SMALL_PIECE)) break;
      const count = Math.min(wanted, left);
      this.reading.shift();
      try {
        await this.parts.engine.prefill(job.reading!, [ids.subarray(job.read, job.read + count)]);
        moved = true;
        job.read += count;
        left -= count;
        if (job.read === ids.length) await this.read(job, this.handOver(job));
        else {
          if (marks.includes(job.read)) await this.snapshot(job);
          this.reading.push(job);
        }
      } catch (error) {
        this.failed(job, error);
        if (error instanceof DisposedError) throw error;
      }
    }
    return moved;
  }

  private marksOf({ work: { plan }, ids }: Job): number[] {
    const before = ids!.length - (plan?.input_ids.length ?? 0);
    return (plan?.request.marks ?? []).map((mark) => before + mark);
  }

  private handOver(job: Job): SharedState {
    const state = new SharedState(job.reading!);
    job.reading = null;
    return state;
  }

  /** Keeps what was read so far, in the middle of a prompt. */
  private async snapshot(job: Job): Promise<void> {
    const ids = job.ids!.subarray(0, job.read);
    if (!this.parts.cache.wants(ids.length)) return;
    const state = new SharedState(await job.reading!.clone());
    this.parts.cache.insert(ids, state, true);
    state.release();
  }
}
