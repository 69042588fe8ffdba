/** Prompts: looked up, and read in pieces between blocks of tokens. */
import { DisposedError } from '../../base/errors.js';
import type { DecodingRows } from '../../generation/decoding_rows.js';
import type { GenerationEngine } from '../../generation/engine.js';
import type { Job } from './job.js';
import type { StateKeep } from './kept_states.js';
import { SharedState } from './shared_state.js';
import type { StateCache } from './state_cache.js';
import type { Tally } from './tally.js';

/** Ids of a prompt that are not worth a call of their own while others wait for it. */
const SMALL_PIECE = 64;

/** Prompts from so many ids on are read alone: they keep a device busy by themselves. */
const LONG = 1024;

/** Of the ids that are read between two blocks, how many times as many where most rows are empty and prompts are read together. */
const MOST_AHEAD = 8;

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

/** Counts of a job's ids after which its client wants a snapshot. */
export function marksOf(parts: Parts, job: Job): number[] {
  if (!caches(parts, job)) return [];
  const { work, ids } = job;
  const { plan } = work;
  const before = ids!.length - (plan?.input_ids.length ?? 0);
  return (plan?.request.marks ?? []).map((mark) => before + mark);
}

/** A prompt that was read whole, and the state after it. */
export interface ReadPrompt {
  readonly job: Job;
  readonly state: SharedState;
}

/** Ids of a prompt that are to be read next. */
interface Piece {
  readonly job: Job;
  /** Up to the next snapshot, or the end. */
  readonly wanted: number;
  readonly count: number;
}

export class Prompts {
  /** Those that are being read; the next piece is the first one's. */
  private reading: Job[] = [];

  /**
   * @param pieces ids that are read between two blocks, at most, while no more prompts are read than rows run
   * @param read takes over the states after whole prompts
   */
  constructor(
    private readonly parts: Parts,
    private readonly pieces: number,
    private readonly read: (read: readonly ReadPrompt[]) => Promise<void>,
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
      if (from?.length === ids.length) return await this.read([{ job, state: from.state }]);
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

  /**
   * Pieces of prompts, up to so many ids in all: more while few rows run, since the others stand empty.
   * @param running rows that wait meanwhile @returns whether there was any
   */
  async readPieces(rows: DecodingRows, running: number): Promise<boolean> {
    const share = Math.floor(this.reading.length / Math.max(1, running));
    let left = this.pieces * Math.min(Math.max(1, share), rows.readers > 1 ? MOST_AHEAD : 1);
    let moved = false;
    while (this.reading.length > 0 && left > 0) {
      const pieces = this.next(rows, left, moved);
      if (pieces.length === 0) break;
      const jobs = new Set(pieces.map(({ job }) => job));
      this.reading = this.reading.filter((job) => !jobs.has(job));
      try {
        await this.readTogether(rows, pieces);
        moved = true;
      } catch (error) {
        for (const job of jobs) this.failed(job, error);
        if (error instanceof DisposedError) throw error;
      }
      left -= pieces.reduce((sum, { count }) => sum + count, 0);
    }
    return moved;
  }

  /** What is read next: a piece of the first prompt, and of those of like length beside it. */
  private next(rows: DecodingRows, left: number, moved: boolean): Piece[] {
    const alone = this.pieceOf(this.reading[0]!, left);
    if (moved && left < Math.min(alone.wanted, SMALL_PIECE)) return [];
    if (rows.readers < 2 || !rows.read || alone.wanted > LONG) return [alone];
    const share = Math.max(SMALL_PIECE, Math.floor(left / Math.min(rows.readers, this.reading.length)));
    const like = Math.min(alone.wanted, share, left);
    const pieces: Piece[] = [];
    let rest = left;
    for (const job of this.reading) {
      if (pieces.length === rows.readers || rest <= 0) break;
      const piece = this.pieceOf(job, Math.min(share, rest));
      if (pieces.length > 0 && piece.count < Math.min(piece.wanted, SMALL_PIECE)) break; // what is left is not worth while
      const [less, more] = [Math.min(piece.count, like), Math.max(piece.count, like)];
      if (more > SMALL_PIECE && 2 * less < more) continue; // the shorter one would stand still for most of it
      pieces.push(piece);
      rest -= piece.count;
    }
    return pieces.length >= rows.fewest ? pieces : [alone];
  }

  private pieceOf(job: Job, most: number): Piece {
    const wanted = job.nextStop(marksOf(this.parts, job)) - job.read;
    return { job, wanted, count: Math.min(wanted, most) };
  }

  private async readTogether(rows: DecodingRows, pieces: readonly Piece[]): Promise<void> {
    // what the readers hold since the last time goes where there is room
    await this.parts.cache.makePlaces(rows.places?.due ?? 0);
    const states = pieces.map(({ job }) => job.reading!);
    const ids = pieces.map(({ job, count }) => job.ids!.subarray(job.read, job.read + count));
    if (pieces.length > 1) await rows.read!(states, ids);
    else await this.parts.engine.prefill(states[0]!, ids);
    const whole: ReadPrompt[] = [];
    for (const { job, count } of pieces) {
      job.read += count;
      if (job.read === job.ids!.length) whole.push({ job, state: this.handOver(job) });
      else {
        if (marksOf(this.parts, job).includes(job.read)) await this.snapshot(job);
        this.reading.push(job);
      }
    }
    if (whole.length > 0) await this.read(whole);
  }

  private handOver(job: Job): SharedState {
    const state = new SharedState(job.reading!);
    job.reading = null;
    return state;
  }

  /** Keeps what was read so far, in the middle of a prompt. */
  private async snapshot(job: Job): Promise<void> {
    const ids = job.ids!.subarray(0, job.read);
    if (!this.parts.cache.wants(ids.length, true)) return;
    const state = new SharedState(await job.reading!.clone());
    this.parts.cache.insert(ids, state, true);
    state.release();
  }
}
