/** Requests on their way: a job reads a prompt, and each of its choices writes one text after it. */
import { RandomStream } from '../../generation/random.js';
import type { EngineState } from '../../generation/engine.js';
import type { FinishReason, StoppingCriteria } from '../../generation/stopping.js';
import type { Delivery } from './events.js';
import type { Plan } from './plan.js';
import type { SharedState } from './shared_state.js';
import type { ScheduledResult, TokenConstraint, TokenLogprobs } from './types.js';

/** Reads ids and hands out the state after them; no text is written. */
export interface ReadOnly {
  readonly from: string | null;
  readonly input_ids: Int32Array;
  /** Takes the state over. */
  done(ids: Int32Array, state: SharedState): void;
  failed(error: unknown): void;
}

export class Job {
  readonly kind = 'job';
  readonly began = performance.now();
  /** Milliseconds since it began: until the prompt was begun, and until the first new id. */
  queued: number | null = null;
  firstToken: number | null = null;
  /** All ids of the prompt, those of a kept state included; known once it was looked up. */
  ids: Int32Array | null = null;
  /** The state after the first `read` of them, while they are read. */
  reading: EngineState | null = null;
  read = 0;
  choices: Choice[] = [];
  preemptions = 0;
  /** Id of the kept state after the answer. */
  kept: string | null = null;
  aborted = false;
  /** Tells generate(), where it runs beside the rows. */
  readonly stop = new AbortController();
  /** Whether it was handed over: finished, failed. */
  settled = false;
  /** Takes the listener of the request's signal off. */
  unlisten: () => void = () => undefined;

  constructor(
    readonly id: string,
    readonly priority: number,
    readonly client: string,
    readonly delivery: Delivery,
    readonly work: { plan: Plan; only: null } | { plan: null; only: ReadOnly },
  ) {}

  /** Where the next snapshot of the prompt is to be made, or its end. */
  nextStop(marks: readonly number[]): number {
    const end = this.ids!.length;
    return Math.min(end, ...marks.filter((mark) => mark > this.read));
  }

  get milliseconds(): number {
    return performance.now() - this.began;
  }

  /** Its rows, which have nothing yet before the prompt is read. */
  texts(): readonly Pick<Choice, 'newIds' | 'logprobs' | 'finish'>[] {
    if (this.choices.length > 0) return this.choices;
    const count = this.work.plan?.options.num_return_sequences ?? 0;
    return Array.from({ length: count }, () => ({ newIds: [], logprobs: null, finish: null }));
  }

  /** What there is; rows that go on were aborted. */
  result(): ScheduledResult {
    const choices = this.texts().map(({ newIds, logprobs, finish }) => ({
      ids: newIds,
      ...(logprobs && { logprobs }),
      finish_reason: finish ?? ('abort' as const),
    }));
    return {
      choices,
      usage: { ...this.delivery.usage },
      times: { queued: this.queued ?? this.milliseconds, first_token: this.firstToken, total: this.milliseconds },
      preemptions: this.preemptions,
      state: this.kept,
    };
  }
}

export class Choice {
  readonly kind = 'choice';
  /** The prompt, then the new ids. */
  readonly all: number[];
  readonly prompt_length: number;
  readonly limit: number;
  readonly constraint: TokenConstraint | null;
  readonly logprobs: TokenLogprobs[] | null;
  private readonly random: RandomStream | null;
  /** Numbers that were drawn from it and not used yet. */
  private drawn: number[] = [];
  /** The state to go on from, while it has no row. */
  state: SharedState | null = null;
  row: number | null = null;
  /** New ids since it has its row. */
  since = 0;
  finish: FinishReason | null = null;

  /** @throws GenerationError where the prompt leaves no room */
  constructor(
    readonly job: Job,
    readonly plan: Plan,
    readonly index: number,
    private readonly criteria: readonly StoppingCriteria[],
    seed: number,
  ) {
    const { options, request } = plan;
    this.all = Array.from(job.ids!);
    this.prompt_length = this.all.length;
    this.limit = plan.limit(this.prompt_length);
    this.constraint = request.constraint?.(index) ?? null;
    this.logprobs = request.logprobs == null ? null : [];
    this.random = options.do_sample ? new RandomStream(seed, index) : null;
  }

  get priority(): number {
    return this.job.priority;
  }

  get client(): string {
    return this.job.client;
  }

  get newIds(): number[] {
    return this.all.slice(this.prompt_length);
  }

  get count(): number {
    return this.all.length - this.prompt_length;
  }

  /** Whether each token must be looked at before the next is chosen. */
  get stepwise(): boolean {
    return this.constraint !== null || this.logprobs !== null;
  }

  /** Whether tokens beyond the end of the text would be in a state that is kept. */
  get exact(): boolean {
    const { options, request } = this.plan;
    return (
      request.keep_state === true &&
      this.index === 0 &&
      (options.stop_strings.length > 0 || options.max_time !== null || (request.stopping_criteria?.length ?? 0) > 0)
    );
  }

  /** The row's next random numbers, which stay until they are used. */
  uniforms(count: number): Float32Array | null {
    if (!this.random) return null;
    while (this.drawn.length < count) this.drawn.push(this.random.uniform());
    return Float32Array.from(this.drawn.slice(0, count));
  }

  /** Takes new ids until one ends the text. @returns those that belong to it */
  async take(ids: readonly number[]): Promise<number[]> {
    const taken: number[] = [];
    for (const id of ids) {
      this.all.push(id);
      this.drawn.shift();
      this.since++;
      taken.push(id);
      let reason: FinishReason | null = null;
      for (const criterion of this.criteria)
        if ((await criterion.done(this.all, null, this.index)) && reason === null)
          reason = criterion.reason ?? 'criteria';
      if (this.constraint?.accept(id) && reason === null) reason = 'criteria';
      this.finish = reason ?? (this.count >= this.limit ? 'length' : null);
      if (this.finish !== null) break;
    }
    return taken;
  }

  /** Lets go of the state that it waits with. */
  release(): void {
    this.state?.release();
    this.state = null;
  }
}
