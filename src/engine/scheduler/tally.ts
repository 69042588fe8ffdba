/** What a scheduler counts and tells. */
import type { Choice, Job } from './job.js';
import type { ScheduledResult, SchedulerEvent, SchedulerMetrics } from './types.js';

type Sums = Omit<SchedulerMetrics, 'rows' | 'rows_running' | 'running' | 'waiting' | 'queue' | 'cache'>;

/** Of the mean time of a request, what the newest one counts. */
const NEWEST = 0.1;

export class Tally {
  readonly sums: Sums = {
    submitted: 0,
    refused: 0,
    finished: 0,
    failed: 0,
    aborted: 0,
    preemptions: 0,
    prompt_tokens: 0,
    cached_tokens: 0,
    completion_tokens: 0,
  };
  /** Mean milliseconds between two requests that end. */
  private pace: number | null = null;
  private lastEnd: number | null = null;

  constructor(private readonly listener: ((event: SchedulerEvent) => void) | undefined) {}

  submitted({ id }: Job): void {
    this.sums.submitted++;
    this.tell({ kind: 'submitted', id });
  }

  refused(id: string): void {
    this.sums.refused++;
    this.tell({ kind: 'refused', id });
  }

  /** Its prompt was looked up. */
  admitted({ id, milliseconds, delivery: { usage } }: Job): void {
    const { prompt_tokens, cached_tokens } = usage;
    this.sums.prompt_tokens += prompt_tokens;
    this.sums.cached_tokens += cached_tokens;
    this.tell({ kind: 'admitted', id, milliseconds, prompt_tokens, cached_tokens });
  }

  /** New ids of a row. @param elapsed milliseconds of the block that they are of */
  tokens(job: Job, choice: Choice | null, count: number, elapsed: number): void {
    if (count === 0) return;
    this.sums.completion_tokens += count;
    job.delivery.usage.completion_tokens += count;
    if (job.firstToken === null) {
      job.firstToken = job.milliseconds;
      this.tell({ kind: 'first_token', id: job.id, milliseconds: job.firstToken });
    } else if (choice) this.tell({ kind: 'tokens', id: job.id, count, milliseconds: elapsed / count });
  }

  preempted(job: Job): void {
    job.preemptions++;
    this.sums.preemptions++;
    this.tell({ kind: 'preempted', id: job.id });
  }

  finished({ id, aborted }: Job, result: ScheduledResult): void {
    if (aborted) this.sums.aborted++;
    else this.sums.finished++;
    this.ended();
    this.tell({ kind: 'finished', id, result });
  }

  failed({ id }: Job, error: unknown): void {
    this.sums.failed++;
    this.ended();
    this.tell({ kind: 'failed', id, error });
  }

  /** Seconds until so many requests have ended, as they do of late; 1 at least. */
  expectedWait(waiting: number): number {
    return Math.max(1, Math.ceil(((this.pace ?? 1000) * Math.max(1, waiting / 4)) / 1000));
  }

  private ended(): void {
    const now = performance.now();
    const between = this.lastEnd === null ? null : now - this.lastEnd;
    if (between !== null) this.pace = this.pace === null ? between : this.pace + NEWEST * (between - this.pace);
    this.lastEnd = now;
  }

  private tell(event: SchedulerEvent): void {
    try {
      this.listener?.(event);
    } catch {
      // who listens must not stop who works
    }
  }
}
