/** The server: the API of OpenAI, and states, over one model. */
import { ArgumentError } from '../base/errors.js';
import { type ServerOptions, settingsOf } from './options.js';

export type { LogLevel, ServerOptions } from './options.js';
export type { StateCacheOptions } from '../engine/scheduler/types.js';

/** A server that listens. */
export interface Mamba2Server {
  /** Where it is reached, such as http://127.0.0.1:8000. */
  readonly url: string;
  /** Settles when the model is warm: until then `/ready` answers 503. */
  readonly ready: Promise<void>;
  /** Takes no more requests, lets running ones come to their end within `drain_seconds`, and then stops. The model stays the caller's. */
  close(): Promise<void>;
}

/**
 * Serves a model over HTTP, and listens when the promise settles.
 *
 * @throws ArgumentError for wrong options, and where the packages that serving needs are not installed; what listening throws
 */
export async function createServer(options: ServerOptions): Promise<Mamba2Server> {
  const settings = settingsOf(options);
  const { RunningServer } = await import('./server.js').catch(notInstalled);
  const server = await RunningServer.start(settings);
  return {
    get url() {
      return server.url;
    },
    get ready() {
      return server.ready;
    },
    close: () => server.close(settings.drain_seconds),
  };
}

function notInstalled(cause: unknown): never {
  if ((cause as NodeJS.ErrnoException).code !== 'ERR_MODULE_NOT_FOUND') throw cause;
  throw new ArgumentError(
    `createServer() needs packages that this installation left out (${(cause as Error).message.split('\n')[0]}). They are optional ` +
      'dependencies: run `npm install` without --omit=optional.',
    {},
    { cause },
  );
}
