/** `/v1/states`: what the model has read, kept under an id, to go on from as often as one likes. Ids are made here; none is a path. */
import type { FastifyInstance } from 'fastify';
import type { KeptState } from '../../engine/scheduler/types.js';
import { Asker } from '../asker.js';
import type { StatesBody } from '../bodies.js';
import type { ServerContext } from '../context.js';
import { ApiError, badParam } from '../errors.js';
import { noteTexts } from '../log.js';
import { chatPrompt, promptsOf } from '../prompts.js';
import { STATES_BODY } from '../schemas.js';

type Id = { Params: { id: string } };

export function stateRoutes(app: FastifyInstance, context: ServerContext): void {
  const { states } = context.scheduler;
  const tags = ['states'];
  app.get('/v1/states', { schema: { summary: 'The kept states', tags } }, async () => ({
    object: 'list',
    data: (await states.list()).map(shown),
  }));
  app.post<{ Body: StatesBody }>(
    '/v1/states',
    { schema: { body: STATES_BODY, summary: 'Read a text and keep the state after it', tags } },
    async (request, reply) => {
      const { body } = request;
      noteTexts(request, context.settings, body.prompt ?? body.messages);
      const ids = await idsOf(context, body);
      const asker = new Asker(request, reply, context.settings.request_seconds);
      try {
        const state = await states.create(ids, { from: body.state ?? null, signal: asker.signal });
        return await reply.code(201).send(shown(state));
      } finally {
        asker.done();
      }
    },
  );
  app.get<Id>('/v1/states/:id', { schema: { summary: 'One state', tags } }, async ({ params }) => {
    const state = await states.get(params.id);
    if (!state) throw unknown(params.id);
    return shown(state);
  });
  app.post<Id>(
    '/v1/states/:id/fork',
    { schema: { summary: 'The same state under one more id', tags } },
    async ({ params }, reply) => {
      if (!(await states.get(params.id))) throw unknown(params.id);
      return reply.code(201).send(shown(await states.fork(params.id)));
    },
  );
  app.delete<Id>('/v1/states/:id', { schema: { summary: 'Forget a state', tags } }, async ({ params }) => {
    if (!(await states.delete(params.id))) throw unknown(params.id);
    return { id: params.id, object: 'state.deleted', deleted: true };
  });
}

async function idsOf(context: ServerContext, { prompt, messages, state }: StatesBody): Promise<number[]> {
  if ((prompt === undefined) === (messages === undefined))
    throw badParam('prompt', "Give 'prompt' or 'messages', one of them.", 'missing_required_parameter');
  if (messages) {
    if (state != null)
      throw badParam(
        'state',
        "'state' beside 'messages' is not supported: give the text that follows as 'prompt'.",
        'unsupported_parameter',
      );
    return (await chatPrompt(context, messages, { add_generation_prompt: false })).ids;
  }
  return (await promptsOf(context, prompt!, 'prompt', { special: state == null }))[0]!;
}

function shown({ id, tokens, bytes, created }: KeptState): object {
  return { id, object: 'state', created: Math.floor(created / 1000), tokens, bytes };
}

function unknown(id: string): ApiError {
  return new ApiError(`There is no state '${id.slice(0, 80)}'.`, { status: 404, param: 'id', code: 'state_not_found' });
}
