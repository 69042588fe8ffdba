/** `/v1/responses`: answers a conversation, and remembers it. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { Asker } from '../asker.js';
import { Choices } from '../choices.js';
import type { ServerContext } from '../context.js';
import { ApiError } from '../errors.js';
import { noteTexts } from '../log.js';
import { chatPrompt } from '../prompts.js';
import { chatOf, inWordsOfHere, type ResponsesBody } from '../responses/body.js';
import { ResponseEvents } from '../responses/events.js';
import { messagesOf } from '../responses/input.js';
import { StoredResponses } from '../responses/stored.js';
import { lengthOf, samplingOf } from '../sampling.js';
import { RESPONSES_BODY } from '../schemas.js';
import { sendNamedEvents } from '../sse.js';
import { type Form, formOf } from '../tools/form.js';
import { plainReader } from '../tools/reader.js';

type Id = { Params: { id: string } };

export function responseRoutes(app: FastifyInstance, context: ServerContext): void {
  const stored = new StoredResponses();
  const tags = ['text'];
  app.post<{ Body: ResponsesBody }>(
    '/v1/responses',
    {
      schema: {
        body: RESPONSES_BODY,
        summary: 'Answer a conversation, which goes on by the id of its last answer',
        tags,
      },
    },
    async (request, reply) => {
      try {
        return await respond(context, stored, request, reply);
      } catch (error) {
        throw inWordsOfHere(error);
      }
    },
  );
  app.get<Id>('/v1/responses/:id', { schema: { summary: 'A response that was given', tags } }, ({ params }) => {
    const found = stored.get(params.id);
    if (!found) throw unknown(params.id, 'id', 404);
    return found.response;
  });
  app.delete<Id>('/v1/responses/:id', { schema: { summary: 'Forget a response', tags } }, ({ params }) => {
    if (!stored.delete(params.id)) throw unknown(params.id, 'id', 404);
    return { id: params.id, object: 'response.deleted', deleted: true };
  });
}

async function respond(
  context: ServerContext,
  stored: StoredResponses,
  request: FastifyRequest<{ Body: ResponsesBody }>,
  reply: FastifyReply,
): Promise<unknown> {
  const { body } = request;
  const { settings } = context;
  context.checkModel(body.model);
  noteTexts(request, settings, body.input);
  const { previous_response_id: previous = null, instructions = null } = body;
  const before = previous === null ? { messages: [] } : stored.get(previous);
  if (!before) throw unknown(previous!, 'previous_response_id', 400);
  const conversation = [...before.messages, ...messagesOf(body.input)];
  const chat = { ...chatOf(body), messages: conversation };
  const asker = new Asker(request, reply, settings.request_seconds);
  let form: Form | null = null;
  try {
    const sampling = samplingOf(chat, settings, lengthOf(chat, settings.max_tokens, settings.max_tokens));
    form = await formOf(context, chat, sampling.max_new_tokens ?? undefined);
    // instructions are of one request; those of earlier ones are not told again
    const messages = [...(instructions === null ? [] : [{ role: 'system', content: instructions }]), ...conversation];
    const { ids, marks } = await chatPrompt(context, messages, { tools: form.tools });
    const kept = settings.state_cache !== false && { marks: await marks() };
    const choices = Choices.submit(
      context,
      asker,
      [ids],
      { ...sampling, ...kept, ...(form.constraint && { constraint: form.constraint }) },
      chat,
    );
    const events = new ResponseEvents(settingsOf(context, body), form.reader?.() ?? plainReader());
    let response: Record<string, unknown> = {};
    const all = events.of(
      choices.events(),
      () => choices.usage,
      (done) => {
        response = done;
        if (body.store ?? true) stored.keep(events.id, { response, messages: [...conversation, events.answer] });
      },
    );
    if (body.stream) return await sendNamedEvents(reply, all, settings.stall_seconds);
    // eslint-disable-next-line @typescript-eslint/no-unused-vars -- the last of them has the whole
    for await (const _ of all);
    return response;
  } finally {
    form?.dispose();
    asker.done();
  }
}

/** What a response says of its request. */
function settingsOf({ settings }: ServerContext, body: ResponsesBody): Record<string, unknown> {
  const own = settings.model.generation_config;
  return {
    instructions: body.instructions ?? null,
    max_output_tokens: body.max_output_tokens ?? null,
    metadata: body.metadata ?? {},
    model: settings.model_name,
    parallel_tool_calls: body.parallel_tool_calls ?? true,
    previous_response_id: body.previous_response_id ?? null,
    prompt_cache_key: body.prompt_cache_key ?? null,
    reasoning: { effort: null, summary: null },
    store: body.store ?? true,
    temperature: body.temperature ?? own.temperature ?? 1,
    text: { format: body.text?.format ?? { type: 'text' } },
    tool_choice: body.tool_choice ?? 'auto',
    tools: body.tools ?? [],
    top_p: body.top_p ?? own.top_p ?? 1,
    truncation: 'disabled',
    user: body.user ?? null,
  };
}

function unknown(id: string, param: string, status: number): ApiError {
  return new ApiError(
    `There is no response '${id.slice(0, 80)}' here: it was not stored, was forgotten, or is another server's. Send the conversation as 'input'.`,
    {
      status,
      param,
      code: status === 404 ? 'response_not_found' : 'previous_response_not_found',
      type: 'invalid_request_error',
    },
  );
}
