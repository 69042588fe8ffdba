/** Many requests over one engine. */
import { GenerationConfig } from '../../generation/config.js';
import type { GenerationEngine } from '../../generation/engine.js';
import { onGpu } from '../../runtime/index.js';
import { QueueFullError, SchedulerClosedError } from './errors.js';
import { Delivery } from './events.js';
import { Job, type ReadOnly } from './job.js';
import { StateKeep } from './kept_states.js';
import {
  CACHE_TABLE,
  type CreateOptions,
  hostBytes,
  REQUEST_TABLE,
  SCHEDULER_TABLE,
  SCHEDULER_WARMUP_TABLE,
} from './options.js';
import { type Known, Plan } from './plan.js';
import type { Parts } from './prompts.js';
import { Rounds } from './rounds.js';
import type { SharedState } from './shared_state.js';
import { StateCache } from './state_cache.js';
import { StateFolder } from './state_folder.js';
import { Tally } from './tally.js';
import type {
  KeptStates,
  RequestScheduler,
  Scheduled,
  ScheduledRequest,
  SchedulerMetrics,
  SchedulerOptions,
  SchedulerWarmupOptions,
} from './types.js';

/** End tokens of a row, where the engine does not say. */
const MOST_EOS = 16;

/** Ids that are read anew in about the time that a state takes from the device to the host and back, if it is wanted again at all. */
const HOST_TOKENS = { gpu: 1024, cpu: 256 } as const;

let serial = 0;

/**
 * Continuous batching: requests run side by side in the rows of one program, and what each gets is what generate() gives it alone.
 *
 * @example
 * const model = await AutoModelForCausalLM.from_pretrained('models/tiny-books-mamba2');
 * const scheduler = new Scheduler(await model.engine(), { rows: 2, generation_config: model.generation_config });
 * const requests = [[5, 6, 7], [8, 9]].map((input_ids) => scheduler.submit({ input_ids, max_new_tokens: 20 }));
 * for await (const { ids, finish_reason } of requests[0]!) console.log(ids, finish_reason);
 * const { choices, usage } = await requests[1]!.result;
 * await scheduler.close();
 */
export class Scheduler implements RequestScheduler {
  readonly states: KeptStates;
  private readonly parts: Parts;
  private readonly rounds: Rounds;
  private readonly known: Known;
  private readonly options: SchedulerOptions & { rows: number; queue: number };
  private state: 'open' | 'draining' | 'closed' = 'open';
  private closing: Promise<void> | null = null;

  /**
   * @param engine of a model; one scheduler at a time
   * @throws ArgumentError for an option that is none, or none of what it may be; SaveError where the folder cannot be made
   */
  constructor(engine: GenerationEngine, options: SchedulerOptions = {}) {
    this.options = SCHEDULER_TABLE.fill<'rows' | 'queue'>(options);
    const {
      rows,
      row_sizes,
      block,
      readers,
      slice = null,
      state_cache = {},
      tokenizer = null,
      vocab_limit,
    } = this.options;
    const {
      folder = null,
      host_bytes = hostBytes(),
      folder_bytes,
      device_bytes,
      prompt_end_tokens = onGpu() ? 128 : 0,
      host_tokens = onGpu() ? HOST_TOKENS.gpu : HOST_TOKENS.cpu,
    } = CACHE_TABLE.fill<'folder_bytes'>(state_cache === false ? {} : state_cache);
    const config = this.options.generation_config ?? {};
    this.known = {
      config: config instanceof GenerationConfig ? config : new GenerationConfig(config),
      vocab_size: engine.vocab_size,
      vocab_limit: Math.min(vocab_limit ?? tokenizer?.vocab_size ?? engine.vocab_size, engine.vocab_size),
      tokenizer,
      most_eos: MOST_EOS,
    };
    const tally = new Tally(this.options.on_event);
    const files = engine.state_files;
    const place = folder !== null && files ? new StateFolder(folder, files, folder_bytes) : null;
    const rules = { host_bytes, prompt_end_tokens, host_tokens };
    const cache: StateCache = new StateCache(engine, rules, place, () => kept);
    const room = { each: cache.each, budget: host_bytes, makeRoom: (more: number) => cache.makeRoom(more) };
    const kept = new StateKeep(engine, place, (ids, how) => this.readOnly(ids, how), room);
    this.states = kept;
    this.parts = { engine, tally, cache, kept, useCache: state_cache !== false };
    const prompt_tokens = this.options.prompt_tokens ?? engine.segments?.at(-1) ?? 512;
    this.rounds = new Rounds(this.parts, this.known, {
      rows,
      row_sizes,
      block,
      prompt_tokens,
      slice,
      readers,
      // a CPU's places are the host's memory
      device_bytes: device_bytes ?? (!onGpu() && (state_cache === false || host_bytes === 0) ? 0 : undefined),
    });
  }

  submit(request: ScheduledRequest): Scheduled {
    REQUEST_TABLE.check(request);
    this.checkOpen();
    const plan = new Plan(request, this.known);
    const { priority = 0, client = '', signal } = request;
    return this.enter(priority, client, signal ?? null, { plan, only: null }).delivery;
  }

  metrics(): SchedulerMetrics {
    const { queue, jobs, freeRows } = this.rounds;
    const queued = new Set(queue.all().map((item) => (item.kind === 'job' ? item : item.job)));
    return {
      rows: this.options.rows,
      rows_running: this.options.rows - freeRows,
      running: [...jobs].filter((job) => !queued.has(job)).length,
      waiting: queued.size,
      queue: this.options.queue,
      ...this.parts.tally.sums,
      cache: this.parts.cache.metrics(),
    };
  }

  async warmup(options: SchedulerWarmupOptions = {}): Promise<void> {
    SCHEDULER_WARMUP_TABLE.check(options);
    this.checkOpen();
    const { engine } = this.parts;
    const rows = await this.rounds.openRows();
    await rows.warmup(options.stepwise);
    const state = await engine.createState(1);
    try {
      for (const length of engine.segments ?? [1]) await engine.prefill(state, [new Int32Array(length)]);
    } finally {
      state.dispose();
    }
  }

  async drain(milliseconds = Infinity): Promise<void> {
    if (this.state === 'open') this.state = 'draining';
    const late = Number.isFinite(milliseconds) ? setTimeout(() => this.abortAll(), milliseconds) : undefined;
    await this.rounds.whenIdle();
    clearTimeout(late);
    await this.close();
  }

  close(): Promise<void> {
    this.state = 'closed';
    this.closing ??= this.end();
    return this.closing;
  }

  private async end(): Promise<void> {
    this.abortAll();
    await this.rounds.whenIdle();
    this.parts.kept.close();
    await this.parts.cache.close();
    this.rounds.close();
  }

  private abortAll(): void {
    for (const job of this.rounds.jobs) this.rounds.leave(job);
  }

  private checkOpen(): void {
    if (this.state !== 'open')
      throw new SchedulerClosedError('This scheduler takes no more requests: it was told to end.', {
        state: this.state,
      });
  }

  /** @throws QueueFullError */
  private enter(priority: number, client: string, signal: AbortSignal | null, work: Job['work']): Job {
    this.checkOpen();
    const { rounds, options } = this;
    const { tally } = this.parts;
    const id = `request_${++serial}`;
    const waiting = rounds.queue.size;
    if (waiting >= options.queue + rounds.freeRows) {
      tally.refused(id);
      const retry_after = tally.expectedWait(waiting);
      throw new QueueFullError(
        `${waiting} requests wait, and the queue takes ${options.queue}. Try again in ${retry_after} s.`,
        { waiting, limit: options.queue, retry_after },
      );
    }
    const job: Job = new Job(id, priority, client, new Delivery(id, () => rounds.leave(job)), work);
    tally.submitted(job);
    const leave = (): void => rounds.leave(job);
    signal?.addEventListener('abort', leave, { once: true });
    job.unlisten = () => signal?.removeEventListener('abort', leave);
    rounds.enter(job);
    if (signal?.aborted) leave();
    return job;
  }

  private readOnly(input_ids: Int32Array, how: CreateOptions): Promise<{ ids: Int32Array; state: SharedState }> {
    return new Promise((resolve, reject) => {
      const only: ReadOnly = {
        from: how.from ?? null,
        input_ids,
        done: (ids, state) => resolve({ ids, state }),
        failed: (error) => reject((how.signal?.aborted ? how.signal.reason : error) as Error),
      };
      this.enter(how.priority ?? 0, how.client ?? '', how.signal ?? null, { plan: null, only });
    });
  }
}
