/** How long a request is worth working for: until its client leaves, or its time is up. */
import type { FastifyReply, FastifyRequest } from 'fastify';
import { ApiError } from './errors.js';

export class Asker {
  private readonly controller = new AbortController();
  private readonly timer: NodeJS.Timeout;
  private readonly left = (): void => this.controller.abort(new ApiError('The client left.'));

  constructor(
    private readonly request: FastifyRequest,
    private readonly reply: FastifyReply,
    seconds: number,
  ) {
    reply.raw.once('close', this.left);
    this.timer = setTimeout(() => this.controller.abort(outOfTime(seconds)), seconds * 1000);
    if (request.raw.destroyed && !request.raw.complete) this.left();
  }

  get signal(): AbortSignal {
    return this.controller.signal;
  }

  /** The session that the request is part of, by its header or its body. */
  session(field: string | null | undefined): string | null {
    const header = this.request.headers['x-session-id'];
    return (typeof header === 'string' && header !== '' ? header.slice(0, 256) : null) ?? field ?? null;
  }

  /** @throws what the request was aborted with */
  throwIfAborted(): void {
    this.signal.throwIfAborted();
  }

  /** The answer is sent. */
  done(): void {
    clearTimeout(this.timer);
    this.reply.raw.off('close', this.left);
  }
}

function outOfTime(seconds: number): ApiError {
  return new ApiError(`The request took longer than ${seconds} seconds, which is all that one has here.`, {
    status: 503,
    type: 'server_error',
    code: 'timeout',
    retry: false,
  });
}
