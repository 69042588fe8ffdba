/** `/tokenize` and `/detokenize`: texts to ids and back. */
import type { FastifyInstance } from 'fastify';
import type { DetokenizeBody, TokenizeBody } from '../bodies.js';
import type { ServerContext } from '../context.js';
import { badParam } from '../errors.js';
import { chatPrompt, checkIds, promptsOf } from '../prompts.js';
import { DETOKENIZE_BODY, TOKENIZE_BODY } from '../schemas.js';

export function tokenizeRoutes(app: FastifyInstance, context: ServerContext): void {
  const { tokenizer } = context.settings;
  app.post<{ Body: TokenizeBody }>(
    '/tokenize',
    { schema: { body: TOKENIZE_BODY, summary: 'A text or a chat as ids', tags: ['tokens'] } },
    async ({ body }) => {
      context.checkModel(body.model);
      const { prompt, messages } = body;
      if ((prompt === undefined) === (messages === undefined))
        throw badParam('prompt', "Give 'prompt' or 'messages', one of them.", 'missing_required_parameter');
      const tokens = messages
        ? (await chatPrompt(context, messages, { add_generation_prompt: body.add_generation_prompt ?? true })).ids
        : (await promptsOf(context, prompt!, 'prompt', { special: body.add_special_tokens ?? true, empty: true }))[0]!;
      const token_strs = body.return_token_strs ? { token_strs: tokens.map((id) => context.texts.text(id)) } : {};
      return { count: tokens.length, tokens, ...token_strs };
    },
  );
  app.post<{ Body: DetokenizeBody }>(
    '/detokenize',
    { schema: { body: DETOKENIZE_BODY, summary: 'Ids as a text', tags: ['tokens'] } },
    async ({ body }) => {
      context.checkModel(body.model);
      const ids = checkIds(context, [...body.tokens], 'tokens');
      return { prompt: await tokenizer.decode(ids, { skip_special_tokens: body.skip_special_tokens ?? false }) };
    },
  );
}
