/** `/v1/chat/completions`: answers a conversation. */
import { randomUUID } from 'node:crypto';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { TokenLogprobs } from '../../engine/scheduler/types.js';
import { Asker } from '../asker.js';
import type { ChatBody } from '../bodies.js';
import { Choices } from '../choices.js';
import type { ServerContext } from '../context.js';
import { badParam } from '../errors.js';
import { noteTexts } from '../log.js';
import { chatLogprobs } from '../logprobs.js';
import { chatPrompt } from '../prompts.js';
import { lengthOf, samplingOf } from '../sampling.js';
import { CHAT_BODY } from '../schemas.js';
import { sendEvents } from '../sse.js';
import { type Form, formOf } from '../tools/form.js';
import { type Delta, plainReader } from '../tools/reader.js';

export function chatRoutes(app: FastifyInstance, context: ServerContext): void {
  app.post<{ Body: ChatBody }>(
    '/v1/chat/completions',
    { schema: { body: CHAT_BODY, summary: 'Answer a conversation', tags: ['text'] } },
    (request, reply) => answerChat(context, request, reply),
  );
}

async function answerChat(
  context: ServerContext,
  request: FastifyRequest<{ Body: ChatBody }>,
  reply: FastifyReply,
): Promise<unknown> {
  const { body } = request;
  const { settings } = context;
  context.checkModel(body.model);
  noteTexts(request, settings, body.messages);
  if (body.top_logprobs != null && body.top_logprobs > 0 && !body.logprobs)
    throw badParam('top_logprobs', "'top_logprobs' needs 'logprobs': true.");
  const asker = new Asker(request, reply, settings.request_seconds);
  let form: Form | null = null;
  try {
    const sampling = samplingOf(body, settings, lengthOf(body, settings.max_tokens, settings.max_tokens));
    form = await formOf(context, body, sampling.max_new_tokens ?? undefined);
    const { ids, marks } = await chatPrompt(context, body.messages, { tools: form.tools });
    const prompt = body.state == null ? ids : await after(context, body.state, ids);
    const choices = Choices.submit(
      context,
      asker,
      [prompt],
      {
        ...sampling,
        ...(body.state == null && settings.state_cache !== false && { marks: await marks() }),
        ...(form.constraint && { constraint: form.constraint }),
        ...(body.logprobs && { logprobs: body.top_logprobs ?? 0 }),
      },
      body,
    );
    const answer = new Answer(context, body, form);
    return body.stream
      ? await sendEvents(reply, answer.chunks(choices), settings.stall_seconds)
      : await answer.whole(choices);
  } finally {
    form?.dispose();
    asker.done();
  }
}

/** What of the chat comes after a kept state. @throws ApiError where the state has read something else */
async function after({ scheduler }: ServerContext, state: string, ids: readonly number[]): Promise<number[]> {
  const read = await scheduler.states.ids(state);
  if (read.length <= ids.length && read.every((id, at) => id === ids[at])) return ids.slice(read.length);
  throw badParam('state', 'The state has read another conversation than these messages begin with.', 'state_mismatch');
}

/** A tool call that is being put together. */
interface Call {
  id: string;
  type: 'function';
  function: { name: string; arguments: string };
}

/** Writes the answer of one request. */
class Answer {
  private readonly id = `chatcmpl-${randomUUID().replaceAll('-', '')}`;
  private readonly created = Math.floor(Date.now() / 1000);

  constructor(
    private readonly context: ServerContext,
    private readonly body: ChatBody,
    private readonly form: Form,
  ) {}

  private get n(): number {
    return this.body.n ?? 1;
  }

  private head(object: string): {
    id: string;
    object: string;
    created: number;
    model: string;
    system_fingerprint: null;
  } {
    const { id, created } = this;
    return { id, object, created, model: this.context.settings.model_name, system_fingerprint: null };
  }

  async whole(choices: Choices): Promise<object> {
    const found = Array.from({ length: this.n }, (_, index) => ({
      index,
      content: '',
      calls: [] as Call[],
      tokens: [] as TokenLogprobs[],
      finish_reason: null as string | null,
    }));
    for await (const { index, delta, tokens, finish_reason } of this.deltas(choices)) {
      const choice = found[index]!;
      choice.content += delta.content ?? '';
      for (const { index: at, id, function: called } of delta.tool_calls ?? []) {
        const call = (choice.calls[at] ??= { id: id ?? '', type: 'function', function: { name: '', arguments: '' } });
        call.function.name += called.name ?? '';
        call.function.arguments += called.arguments ?? '';
      }
      choice.tokens.push(...tokens);
      choice.finish_reason = finish_reason;
    }
    return {
      ...this.head('chat.completion'),
      choices: found.map(({ index, content, calls, tokens, finish_reason }) => ({
        index,
        message: {
          role: 'assistant',
          content: content === '' && calls.length > 0 ? null : content,
          refusal: null,
          ...(calls.length > 0 && { tool_calls: calls }),
        },
        logprobs: this.logprobs(tokens),
        finish_reason,
      })),
      usage: choices.usage,
      ...(this.body.keep_state && { state: await choices.state() }),
    };
  }

  async *chunks(choices: Choices): AsyncGenerator<object, void, undefined> {
    const withUsage = this.body.stream_options?.include_usage === true;
    const begun = new Set<number>();
    const head = this.head('chat.completion.chunk');
    const usage = withUsage ? { usage: null } : null;
    const chunk = (
      index: number,
      delta: object,
      tokens: readonly TokenLogprobs[],
      finish_reason: string | null,
    ): object => ({
      ...head,
      choices: [{ index, delta, logprobs: tokens.length ? this.logprobs(tokens) : null, finish_reason }],
      ...usage,
    });
    for await (const { index, delta, tokens, finish_reason } of this.deltas(choices)) {
      if (!begun.has(index)) yield chunk(index, { role: 'assistant', content: '' }, [], null);
      begun.add(index);
      const says = delta.content !== undefined || delta.tool_calls !== undefined;
      if (says || tokens.length) yield chunk(index, delta, tokens, null);
      if (finish_reason !== null) yield chunk(index, {}, [], finish_reason);
    }
    const state = this.body.keep_state ? { state: await choices.state() } : null;
    if (withUsage || state) yield { ...head, choices: [], ...(withUsage && { usage: choices.usage }), ...state };
  }

  /** Events of the choices, with their text read as content and tool calls. */
  private async *deltas(
    choices: Choices,
  ): AsyncGenerator<
    { index: number; delta: Delta; tokens: TokenLogprobs[]; finish_reason: string | null },
    void,
    undefined
  > {
    const readers = Array.from({ length: this.n }, () => this.form.reader?.() ?? plainReader());
    for await (const { index, text, logprobs, finish_reason } of choices.events()) {
      const reader = readers[index]!;
      const delta = reader.push(text, finish_reason !== null);
      const reason = finish_reason === 'stop' && reader.called ? 'tool_calls' : finish_reason;
      yield { index, delta, tokens: logprobs, finish_reason: reason };
    }
  }

  private logprobs(tokens: readonly TokenLogprobs[]): { content: object[]; refusal: null } | null {
    if (!this.body.logprobs) return null;
    return { content: chatLogprobs(tokens, this.context.texts, this.body.top_logprobs ?? 0), refusal: null };
  }
}
