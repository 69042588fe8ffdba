/** Answers that come piece by piece: server-sent events, as fast as the client reads them. */
import type { FastifyReply } from 'fastify';
import { ApiError, toApiError } from './errors.js';

/**
 * Sends each chunk as an event as it comes, and the end; or the failure, once something was sent.
 * @param stall_seconds how long a client may leave what was sent unread, before it counts as gone
 * @throws a failure before anything was sent
 */
export async function sendEvents(
  reply: FastifyReply,
  chunks: AsyncIterable<object>,
  stall_seconds: number,
): Promise<FastifyReply> {
  const events = new EventStream(reply, stall_seconds);
  try {
    for await (const chunk of chunks) await events.send(chunk);
    await events.end();
  } catch (error) {
    await events.fail(error);
  }
  return reply;
}

/** The same for events that have a type, by which they are named, and of which the last says by itself that it is. */
export async function sendNamedEvents(
  reply: FastifyReply,
  events: AsyncIterable<{ type: string }>,
  stall_seconds: number,
): Promise<FastifyReply> {
  const stream = new EventStream(reply, stall_seconds, true);
  try {
    for await (const event of events) await stream.send(event, event.type);
    reply.raw.end();
  } catch (error) {
    await stream.fail(error);
  }
  return reply;
}

class EventStream {
  private opened = false;

  constructor(
    private readonly reply: FastifyReply,
    private readonly stall_seconds: number,
    private readonly named = false,
  ) {}

  /** Sends one event, and waits while the client has not read those before. @throws where the client is gone */
  async send(data: unknown, name?: string): Promise<void> {
    await this.write(`${name === undefined ? '' : `event: ${name}\n`}data: ${JSON.stringify(data)}\n\n`);
  }

  /** The end that clients wait for. */
  async end(): Promise<void> {
    await this.write('data: [DONE]\n\n');
    this.reply.raw.end();
  }

  /** A failure: an answer with its status where nothing was sent yet, else an event with the error, which clients throw. */
  async fail(error: unknown): Promise<void> {
    if (!this.opened) throw error;
    const { raw } = this.reply;
    if (raw.destroyed) return;
    const body = toApiError(error).body();
    // clients throw what has `error`; the fields beside it are those of the event as the API has it
    const told = this.named ? this.send({ ...body.error, ...body, type: 'error' }, 'error') : this.send(body);
    await told.catch(() => undefined);
    raw.end();
  }

  private open(): void {
    this.opened = true;
    const { reply } = this;
    reply.hijack();
    for (const [name, value] of Object.entries(reply.getHeaders()))
      if (value !== undefined) reply.raw.setHeader(name, value);
    reply.raw.writeHead(200, {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache, no-transform',
      // proxies of the nginx kind keep events back otherwise
      'x-accel-buffering': 'no',
    });
    reply.raw.flushHeaders();
  }

  private write(text: string): Promise<void> {
    if (!this.opened) this.open();
    const { raw } = this.reply;
    if (raw.destroyed) return Promise.reject(new ApiError('The client left.'));
    if (raw.write(text)) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const done = (): void => {
        clearTimeout(timer);
        raw.off('drain', done);
        raw.off('close', done);
        if (raw.destroyed) reject(new ApiError('The client left.'));
        else resolve();
      };
      // whoever does not read is no reader: the connection ends, and with it the row
      const timer = setTimeout(() => raw.destroy(), this.stall_seconds * 1000);
      raw.on('drain', done);
      raw.on('close', done);
    });
  }
}
