/** What all routes work with. */
import type { RequestScheduler } from '../engine/scheduler/types.js';
import { ApiError } from './errors.js';
import type { Grammars } from './grammar/grammars.js';
import type { Settings } from './options.js';
import type { TokenTexts } from './token_texts.js';

export class ServerContext {
  /** Seconds since 1970. */
  readonly started = Math.floor(Date.now() / 1000);
  /** Whether the first request would be as fast as all. */
  warm = false;
  /** No new requests are taken. */
  ending = false;

  constructor(
    readonly settings: Settings,
    readonly scheduler: RequestScheduler,
    readonly texts: TokenTexts,
    readonly grammars: Grammars,
  ) {}

  /** @throws ApiError 404 for a model that is not here */
  checkModel(name: string | null | undefined): void {
    const { model_name } = this.settings;
    if (name == null || name === model_name) return;
    throw new ApiError(`There is no model '${name.slice(0, 80)}' here; GET /v1/models has those that there are.`, {
      status: 404,
      type: 'invalid_request_error',
      param: 'model',
      code: 'model_not_found',
    });
  }
}
