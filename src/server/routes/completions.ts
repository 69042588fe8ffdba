/** `/v1/completions`: goes on from prompts. */
import { randomUUID } from 'node:crypto';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { TokenLogprobs } from '../../engine/scheduler/types.js';
import { Asker } from '../asker.js';
import type { CompletionBody } from '../bodies.js';
import { Choices } from '../choices.js';
import type { ServerContext } from '../context.js';
import { badParam } from '../errors.js';
import { type CompletionLogprobs, completionLogprobs } from '../logprobs.js';
import { promptsOf } from '../prompts.js';
import { lengthOf, samplingOf } from '../sampling.js';
import { COMPLETION_BODY } from '../schemas.js';
import { promptLogprobs } from '../scoring.js';
import { sendEvents } from '../sse.js';
import { noteTexts } from '../log.js';

/** New tokens where a request does not say: what the API gives. */
const LENGTH = 16;

type Scored = TokenLogprobs | { id: number; logprob: null; top: readonly [] };

/** A prompt that is written out before its choices. */
interface Echo {
  text: string;
  scores: readonly Scored[];
}

export function completionRoutes(app: FastifyInstance, context: ServerContext): void {
  app.post<{ Body: CompletionBody }>(
    '/v1/completions',
    { schema: { body: COMPLETION_BODY, summary: 'Go on from a text', tags: ['text'] } },
    (request, reply) => complete(context, request, reply),
  );
}

async function complete(
  context: ServerContext,
  request: FastifyRequest<{ Body: CompletionBody }>,
  reply: FastifyReply,
): Promise<unknown> {
  const { body } = request;
  const { settings } = context;
  context.checkModel(body.model);
  noteTexts(request, settings, body.prompt);
  const asker = new Asker(request, reply, settings.request_seconds);
  try {
    const limits = samplingOf(body, settings, lengthOf(body, settings.max_tokens, LENGTH));
    if (body.prompt === undefined && body.state == null)
      throw badParam('prompt', "Missing field 'prompt'.", 'missing_required_parameter');
    const prompts = await promptsOf(context, body.prompt ?? [[]], 'prompt', {
      special: body.state == null,
      empty: body.state != null,
    });
    const total = prompts.length * (limits.num_return_sequences ?? 1);
    if (total > settings.max_choices)
      throw badParam(
        'n',
        `${prompts.length} prompts with ${body.n ?? 1} choices each are ${total}; this server gives at most ${settings.max_choices}.`,
        'above_limit',
      );
    if (body.echo && body.state != null)
      throw badParam('echo', "'echo' with 'state' is not supported: the state has no text.", 'unsupported_parameter');
    const echoes = body.echo ? await echoesOf(context, prompts, body, asker.signal) : null;
    const answer = new Answer(context, body, echoes, limits.num_return_sequences ?? 1, total);
    if (limits.max_new_tokens === 0) return answer.echoesAlone(prompts);
    const sampling = { ...limits, ...(body.logprobs != null && { logprobs: body.logprobs }) };
    const choices = Choices.submit(context, asker, prompts, sampling, body);
    return body.stream
      ? await sendEvents(reply, answer.chunks(choices), settings.stall_seconds)
      : await answer.whole(choices);
  } finally {
    asker.done();
  }
}

async function echoesOf(
  { settings: { model, tokenizer } }: ServerContext,
  prompts: readonly (readonly number[])[],
  { logprobs }: CompletionBody,
  signal: AbortSignal,
): Promise<Echo[]> {
  const echoes: Echo[] = [];
  for (const ids of prompts) {
    const text = await tokenizer.decode([...ids], { skip_special_tokens: true });
    const scores: readonly Scored[] =
      logprobs == null
        ? []
        : [
            { id: ids[0]!, logprob: null, top: [] },
            ...(await promptLogprobs(model, ids, logprobs, tokenizer.vocab_size, signal)),
          ];
    echoes.push({ text, scores });
  }
  return echoes;
}

/** Writes the answer of one request. */
class Answer {
  private readonly head: { id: string; object: string; created: number; model: string };

  constructor(
    private readonly context: ServerContext,
    private readonly body: CompletionBody,
    private readonly echoes: readonly Echo[] | null,
    private readonly n: number,
    private readonly total: number,
  ) {
    this.head = {
      id: `cmpl-${randomUUID().replaceAll('-', '')}`,
      object: 'text_completion',
      created: Math.floor(Date.now() / 1000),
      model: context.settings.model_name,
    };
  }

  /** Of a request for no new tokens. */
  echoesAlone(prompts: readonly (readonly number[])[]): object {
    if (!this.echoes) throw badParam('max_tokens', "'max_tokens' is 0, which gives something with 'echo' only.");
    if (this.body.stream) throw badParam('stream', "'max_tokens' is 0, and there is nothing to stream.");
    const choices = Array.from({ length: this.total }, (_, index) => {
      const { text, scores } = this.echo(index)!;
      return { index, text, logprobs: this.logprobs(scores, 0), finish_reason: 'length' };
    });
    const tokens = prompts.reduce((sum, ids) => sum + ids.length, 0);
    return { ...this.head, choices, usage: { prompt_tokens: tokens, completion_tokens: 0, total_tokens: tokens } };
  }

  async whole(choices: Choices): Promise<object> {
    const found = Array.from({ length: this.total }, (_, index) => ({
      index,
      text: this.echo(index)?.text ?? '',
      scores: [...(this.echo(index)?.scores ?? [])],
      finish_reason: null as string | null,
    }));
    for await (const { index, text, logprobs, finish_reason } of choices.events()) {
      const choice = found[index]!;
      choice.text += text;
      choice.scores.push(...logprobs);
      choice.finish_reason = finish_reason;
    }
    return {
      ...this.head,
      choices: found.map(({ scores, ...choice }) => ({ ...choice, logprobs: this.logprobs(scores, 0) })),
      usage: choices.usage,
      ...(this.body.keep_state && { state: await choices.state() }),
    };
  }

  async *chunks(choices: Choices): AsyncGenerator<object, void, undefined> {
    const written = new Array<number>(this.total).fill(0);
    const withUsage = this.body.stream_options?.include_usage === true;
    const chunk = (index: number, text: string, scores: readonly Scored[], finish_reason: string | null): object => {
      const logprobs = this.logprobs(scores, written[index]!);
      written[index]! += text.length;
      return { ...this.head, choices: [{ index, text, logprobs, finish_reason }], ...(withUsage && { usage: null }) };
    };
    if (this.echoes)
      for (let index = 0; index < this.total; index++) {
        const { text, scores } = this.echo(index)!;
        yield chunk(index, text, scores, null);
      }
    for await (const { index, text, logprobs, finish_reason } of choices.events())
      yield chunk(index, text, logprobs, finish_reason);
    const state = this.body.keep_state ? { state: await choices.state() } : null;
    if (withUsage || state) yield { ...this.head, choices: [], ...(withUsage && { usage: choices.usage }), ...state };
  }

  private echo(index: number): Echo | undefined {
    return this.echoes?.[Math.floor(index / this.n)];
  }

  private logprobs(scores: readonly Scored[], offset: number): CompletionLogprobs | null {
    const { logprobs } = this.body;
    return logprobs == null ? null : completionLogprobs(scores, this.context.texts, logprobs, offset);
  }
}
