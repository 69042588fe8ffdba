/** The log: JSON lines of pino, in which no text of a request stands unless the server was told to. */
import type { FastifyRequest } from 'fastify';
import { quote } from '../base/quote.js';
import type { Settings } from './options.js';

/** Options of fastify's logger. What is told of a request: its method and path, without what stands behind `?`. */
export function logOptions({ log_level }: Settings): object | false {
  if (log_level === 'silent') return false;
  return {
    level: log_level,
    serializers: {
      req: ({ method, url, ip }: FastifyRequest) => ({ method, path: url.split('?')[0], ip }),
      res: ({ statusCode }: { statusCode: number }) => ({ status: statusCode }),
    },
  };
}

/** Writes the texts of a request into the log, where the server was told to. */
export function noteTexts(request: FastifyRequest, { log_prompts }: Settings, texts: unknown): void {
  if (log_prompts) request.log.info({ texts: quote(texts, 2000) }, 'prompt');
}
