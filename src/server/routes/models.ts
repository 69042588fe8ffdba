/** `/v1/models`: what there is to talk to. */
import type { FastifyInstance } from 'fastify';
import type { ServerContext } from '../context.js';

export function modelRoutes(app: FastifyInstance, context: ServerContext): void {
  const { model_name, tokenizer, model } = context.settings;
  const entry = {
    id: model_name,
    object: 'model',
    created: context.started,
    owned_by: 'tfjs-mamba2',
    // a state holds a text of any length
    context_length: null,
    vocab_size: tokenizer.vocab_size,
    parameters: model.num_parameters(),
    chat: tokenizer.chat_template !== null,
  };
  app.get('/v1/models', { schema: { summary: 'The models', tags: ['models'] } }, () => ({
    object: 'list',
    data: [entry],
  }));
  app.get<{ Params: { '*': string } }>(
    '/v1/models/*',
    { schema: { summary: 'One model', tags: ['models'] } },
    ({ params }) => {
      context.checkModel(params['*']);
      return entry;
    },
  );
}
