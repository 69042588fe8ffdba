/** Log-probabilities in the two forms that the API has. */
import type { TokenLogprob, TokenLogprobs } from '../engine/scheduler/types.js';
import type { TokenTexts } from './token_texts.js';

interface ChatLogprob {
  token: string;
  logprob: number;
  bytes: number[];
}

/** As chats have them. @param top how many of the best */
export function chatLogprobs(
  tokens: readonly TokenLogprobs[],
  texts: TokenTexts,
  top: number,
): (ChatLogprob & { top_logprobs: ChatLogprob[] })[] {
  const one = ({ id, logprob }: TokenLogprob): ChatLogprob => ({
    token: texts.text(id),
    logprob: finite(logprob),
    bytes: [...texts.bytes(id)],
  });
  return tokens.map((token) => ({ ...one(token), top_logprobs: token.top.slice(0, top).map(one) }));
}

/** As completions have them: lists side by side. */
export interface CompletionLogprobs {
  tokens: string[];
  token_logprobs: (number | null)[];
  top_logprobs: (Record<string, number> | null)[];
  text_offset: number[];
}

/** @param offset characters of the choice's text before these tokens */
export function completionLogprobs(
  tokens: readonly (TokenLogprobs | { id: number; logprob: null; top: readonly [] })[],
  texts: TokenTexts,
  top: number,
  offset: number,
): CompletionLogprobs {
  const result: CompletionLogprobs = { tokens: [], token_logprobs: [], top_logprobs: [], text_offset: [] };
  let at = offset;
  for (const { id, logprob, top: best } of tokens) {
    const text = texts.text(id);
    result.tokens.push(text);
    result.token_logprobs.push(logprob === null ? null : finite(logprob));
    result.top_logprobs.push(logprob === null ? null : topOf(best, texts, top));
    result.text_offset.push(at);
    at += text.length;
  }
  return result;
}

/** Several tokens may have one text, such as halves of characters: the best of them counts. */
function topOf(best: readonly TokenLogprob[], texts: TokenTexts, top: number): Record<string, number> {
  const record: Record<string, number> = Object.create(null) as Record<string, number>;
  for (const { id, logprob } of best.slice(0, top)) record[texts.text(id)] ??= finite(logprob);
  return record;
}

/** JSON has no infinity; this is what the API sends for it. */
function finite(logprob: number): number {
  return Number.isFinite(logprob) ? logprob : -9999;
}
