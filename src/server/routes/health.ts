/** Whether the process lives, and whether it takes requests: for probes. */
import type { FastifyInstance } from 'fastify';
import type { ServerContext } from '../context.js';
import { ApiError, shuttingDown } from '../errors.js';

export function healthRoutes(app: FastifyInstance, context: ServerContext): void {
  app.get('/health', { logLevel: 'warn', schema: { summary: 'The process lives', tags: ['operation'] } }, () => ({
    status: 'ok',
  }));
  app.get(
    '/ready',
    { logLevel: 'warn', schema: { summary: 'The model is warm, and requests are taken', tags: ['operation'] } },
    () => {
      if (context.ending) throw shuttingDown();
      if (!context.warm)
        throw new ApiError('The model is getting warm.', { status: 503, code: 'not_ready', retry_after: 5 });
      return { status: 'ready' };
    },
  );
}
