/** The events of a request on their way to its reader. */
import type { Scheduled, ScheduledResult, ScheduledUsage, TokenEvent } from './types.js';

export class Delivery implements Scheduled {
  readonly result: Promise<ScheduledResult>;
  readonly usage: ScheduledUsage = { prompt_tokens: 0, cached_tokens: 0, completion_tokens: 0 };
  private settle!: { resolve: (result: ScheduledResult) => void; reject: (error: unknown) => void };
  private readonly waiting: TokenEvent[] = [];
  private ended = false;
  private failure: { error: unknown } | null = null;
  private wake: (() => void) | null = null;
  private taken = false;

  /** @param leave what abort() does */
  constructor(
    readonly id: string,
    private readonly leave: () => void,
  ) {
    this.result = new Promise((resolve, reject) => (this.settle = { resolve, reject }));
    // who iterates hears of a failure there
    this.result.catch(() => undefined);
  }

  abort(): void {
    this.leave();
  }

  put(event: TokenEvent): void {
    this.waiting.push(event);
    this.wake?.();
  }

  end(result: ScheduledResult): void {
    this.ended = true;
    this.settle.resolve(result);
    this.wake?.();
  }

  fail(error: unknown): void {
    this.ended = true;
    this.failure = { error };
    this.settle.reject(error);
    this.wake?.();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<TokenEvent> {
    if (this.taken) return;
    this.taken = true;
    try {
      for (;;) {
        const event = this.waiting.shift();
        if (event) yield event;
        else if (this.failure) throw this.failure.error;
        else if (this.ended) return;
        else await new Promise<void>((resolve) => (this.wake = resolve));
      }
    } finally {
      if (!this.ended) this.leave();
    }
  }
}
