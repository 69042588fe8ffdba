/** Examples to ids and labels, as trl's SFTTrainer makes them. */
import { ArgumentError } from '../../base/errors.js';
import * as kinds from '../../base/option_kinds.js';
import { type OptionRules, OptionTable } from '../../base/options.js';
import { IGNORE_INDEX } from '../../layers/index.js';
import type { ChatMessage, Tokenizer } from '../../tokenizers/index.js';
import type { Example } from './readers.js';

/** An example as ids. */
export interface TokenizedExample {
  input_ids: readonly number[];
  /** Default: the ids themselves. */
  labels?: readonly number[];
}

export interface TokenizeOptions {
  /** Key of the text in plain examples. Default 'text'. */
  dataset_text_field?: string;
  /** Longer examples lose their end. Default 1024; null for no limit. */
  max_length?: number | null;
  /** Loss on the completion alone. Default: yes for examples with a prompt and a completion, texts or lists of messages. */
  completion_only_loss?: boolean | null;
  /** Ends every example with the eos token, unless it has one. Default true. */
  append_eos?: boolean;
}

/** Rules of TokenizeOptions. */
export const TOKENIZE_RULES: OptionRules<TokenizeOptions> = {
  dataset_text_field: { kind: kinds.named('the key of the text in an example', kinds.text), default: 'text' },
  max_length: { kind: kinds.orNull(kinds.integer({ min: 2 })), default: 1024 },
  completion_only_loss: { kind: kinds.orNull(kinds.boolean), default: null },
  append_eos: { kind: kinds.boolean, default: true },
};

const TOKENIZE_TABLE = new OptionTable<TokenizeOptions>('tokenizeExample()', TOKENIZE_RULES, {
  others: { text_field: 'dataset_text_field', max_seq_length: 'max_length', add_eos_token: 'append_eos' },
});

const isText = (value: unknown): value is string => typeof value === 'string';

/** Messages, one at least: { role, content } each. */
const isChat = (value: unknown): value is ChatMessage[] =>
  Array.isArray(value) && value.length > 0 && value.every((item) => isText((item as { role?: unknown } | null)?.role));

const kindOf = (value: unknown): string =>
  isText(value) ? 'a text' : isChat(value) ? 'a list of messages' : value === null ? 'null' : `of type ${typeof value}`;

async function textIds(
  example: Example,
  tokenizer: Tokenizer,
  field: string,
): Promise<{ ids: number[]; prompt: number }> {
  const { prompt, completion, messages } = example;
  // where a token joins the end of the prompt and the start of the completion, it counts as the completion's
  const withPrompt = (ids: number[], alone: readonly number[]): { ids: number[]; prompt: number } => {
    let same = 0;
    while (same < alone.length && alone[same] === ids[same]) same++;
    return { ids, prompt: same };
  };
  if (isText(prompt) && isText(completion))
    return withPrompt(await tokenizer.encode(prompt + completion), await tokenizer.encode(prompt));
  if (isChat(prompt) && isChat(completion)) {
    const alone = await tokenizer.apply_chat_template(prompt, { add_generation_prompt: true });
    return withPrompt(await tokenizer.apply_chat_template([...prompt, ...completion]), alone);
  }
  if (prompt !== undefined && completion !== undefined) {
    throw new ArgumentError(
      `The example's prompt is ${kindOf(prompt)} and its completion ${kindOf(completion)}; expected two texts, or two lists of messages such as [{"role": "user", "content": "…"}]`,
      { prompt, completion },
    );
  }
  if (Array.isArray(messages))
    return { ids: await tokenizer.apply_chat_template(messages as ChatMessage[]), prompt: 0 };
  const text = example[field];
  if (!isText(text)) {
    throw new ArgumentError(
      `The example has neither '${field}' nor 'prompt' and 'completion' nor 'messages'; it has ${Object.keys(example).join(', ') || 'nothing'}. Set dataset_text_field.`,
      { keys: Object.keys(example) },
    );
  }
  return { ids: await tokenizer.encode(text), prompt: 0 };
}

/**
 * One example as ids and labels.
 * @returns null when nothing of it is left to learn from
 * @throws ArgumentError when it has no text, TokenizerError when the tokenizer has no eos token
 */
export async function tokenizeExample(
  example: Example,
  tokenizer: Tokenizer,
  options: TokenizeOptions = {},
): Promise<Required<TokenizedExample> | null> {
  TOKENIZE_TABLE.check(options);
  const { dataset_text_field = 'text', max_length = 1024, append_eos = true } = options;
  if (Array.isArray(example['input_ids'])) {
    const ids = example['input_ids'] as number[];
    const labels = (example['labels'] as number[] | undefined) ?? ids;
    return { input_ids: ids.slice(0, max_length ?? undefined), labels: labels.slice(0, max_length ?? undefined) };
  }
  const { ids, prompt } = await textIds(example, tokenizer, dataset_text_field);
  const eos = tokenizer.eos_token_id;
  if (append_eos && eos !== null && ids[ids.length - 1] !== eos) ids.push(eos);
  const input_ids = max_length === null ? ids : ids.slice(0, max_length);
  const masked = (options.completion_only_loss ?? prompt > 0) ? prompt : 0;
  const labels = input_ids.map((id, i) => (i < masked ? IGNORE_INDEX : id));
  const learns = labels.some((label, i) => i > 0 && label !== IGNORE_INDEX);
  return learns ? { input_ids, labels } : null;
}

/** All examples of a list; those without anything to learn from are left out. */
export async function tokenizeExamples(
  examples: Iterable<Example> | AsyncIterable<Example>,
  tokenizer: Tokenizer,
  options: TokenizeOptions = {},
): Promise<Required<TokenizedExample>[]> {
  TOKENIZE_TABLE.check(options);
  const out: Required<TokenizedExample>[] = [];
  let index = 0;
  for await (const example of examples) {
    try {
      const tokenized = await tokenizeExample(example, tokenizer, options);
      if (tokenized) out.push(tokenized);
    } catch (error) {
      throw new ArgumentError(`Example ${index}: ${(error as Error).message}`, { index }, { cause: error });
    }
    index++;
  }
  return out;
}
