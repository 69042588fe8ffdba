/** `/v1/embeddings`: texts as vectors, pooled from the hidden states after the last norm. */
import type { FastifyInstance } from 'fastify';
import { Turns } from '../../base/turns.js';
import { Asker } from '../asker.js';
import type { EmbeddingsBody } from '../bodies.js';
import type { ServerContext } from '../context.js';
import { badParam } from '../errors.js';
import { noteTexts } from '../log.js';
import { pooled } from '../pooling.js';
import { promptsOf } from '../prompts.js';
import { EMBEDDINGS_BODY } from '../schemas.js';

/** Most texts of one request, as in the API. */
const MOST = 2048;

export function embeddingRoutes(app: FastifyInstance, context: ServerContext): void {
  /** One text at a time: rows that write go on between the pieces of it. */
  const turns = new Turns();
  app.post<{ Body: EmbeddingsBody }>(
    '/v1/embeddings',
    { schema: { body: EMBEDDINGS_BODY, summary: 'Texts as vectors', tags: ['text'] } },
    async (request, reply) => {
      const { body } = request;
      const { settings } = context;
      context.checkModel(body.model);
      noteTexts(request, settings, body.input);
      const rows = await promptsOf(context, body.input, 'input');
      if (rows.length > MOST)
        throw badParam('input', `'input' has ${rows.length} texts; at most ${MOST} are taken at once.`, 'above_limit');
      const asker = new Asker(request, reply, settings.request_seconds);
      try {
        const data: object[] = [];
        for (const [index, ids] of rows.entries()) {
          const vector = await turns.take(() => pooled(settings.model, ids, body.pooling ?? 'mean', asker.signal));
          if (body.normalize ?? true) scale(vector);
          const embedding =
            body.encoding_format === 'base64' ? Buffer.from(vector.buffer).toString('base64') : Array.from(vector);
          data.push({ object: 'embedding', index, embedding });
        }
        const tokens = rows.reduce((sum, ids) => sum + ids.length, 0);
        return {
          object: 'list',
          data,
          model: settings.model_name,
          usage: { prompt_tokens: tokens, total_tokens: tokens },
        };
      } finally {
        asker.done();
      }
    },
  );
}

function scale(vector: Float32Array): void {
  const length = Math.hypot(...vector) || 1;
  vector.forEach((value, at) => (vector[at] = value / length));
}
