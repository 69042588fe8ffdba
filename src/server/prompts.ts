/** Prompts of requests as ids. */
import type { TemplateMessage } from '../tokenizers/index.js';
import type { PromptField, Tool } from './bodies.js';
import type { ServerContext } from './context.js';
import { badParam } from './errors.js';

/**
 * The ids of each prompt of a field: of a text, of several, of ids, or of lists of them.
 * @param special whether texts get the tokenizer's special tokens
 * @throws ApiError for what is no prompt, an id outside the vocabulary, too many or too long ones
 */
export async function promptsOf(
  context: ServerContext,
  field: PromptField,
  param: string,
  { special = true, empty = false } = {},
): Promise<number[][]> {
  const { tokenizer, max_choices } = context.settings;
  const list = promptList(field, param);
  if (list.length > max_choices && param === 'prompt')
    throw badParam(
      param,
      `'${param}' has ${list.length} prompts; this server takes at most ${max_choices} at once.`,
      'above_limit',
    );
  const rows: number[][] = [];
  for (const [at, each] of list.entries()) {
    const name = list.length > 1 ? `${param}[${at}]` : param;
    if (typeof each === 'string') checkText(each, name);
    const ids = typeof each === 'string' ? await tokenizer.encode(each, { add_special_tokens: special }) : [...each];
    if (ids.length === 0 && !empty)
      throw badParam(name, `'${name}' is empty: there is nothing to go on from.`, 'empty_prompt');
    rows.push(checkIds(context, ids, name));
  }
  return rows;
}

function promptList(field: PromptField, param: string): readonly (string | readonly number[])[] {
  if (typeof field === 'string') return [field];
  if (field.length === 0)
    throw badParam(param, `'${param}' is an empty list; expected a text, texts, or ids.`, 'empty_prompt');
  if (field.every((each) => typeof each === 'number')) return [field];
  if (field.every((each) => typeof each === 'string')) return field;
  if (field.every((each) => Array.isArray(each))) return field;
  throw badParam(
    param,
    `'${param}' mixes texts and ids; expected a text, a list of texts, ids, or lists of ids.`,
    'invalid_type',
  );
}

/** @throws ApiError for half of a surrogate pair, which is no text */
function checkText(text: string, param: string): void {
  if (/\p{Surrogate}/u.test(text))
    throw badParam(param, `'${param}' has half of a surrogate pair: it is no valid Unicode.`);
}

/** @throws ApiError for ids of no token, and for too many of them */
export function checkIds(context: ServerContext, ids: number[], param: string): number[] {
  const { tokenizer, max_prompt_tokens } = context.settings;
  const wrong = ids.find((id) => !Number.isInteger(id) || id < 0 || id >= tokenizer.vocab_size);
  if (wrong !== undefined)
    throw badParam(
      param,
      `'${param}' has the id ${wrong}; expected whole numbers from 0 to ${tokenizer.vocab_size - 1}.`,
    );
  if (ids.length > max_prompt_tokens)
    throw badParam(
      param,
      `'${param}' has ${ids.length} tokens; this server takes at most ${max_prompt_tokens}.`,
      'context_length_exceeded',
    );
  return ids;
}

/** A chat as ids. */
export interface ChatPrompt {
  ids: number[];
  /** Finds where its messages end, for which they are written and read anew. */
  marks: () => Promise<number[]>;
}

/** @throws ApiError for a model without a chat template, and for what its template refuses */
export async function chatPrompt(
  context: ServerContext,
  messages: readonly TemplateMessage[],
  { tools, add_generation_prompt = true }: { tools?: readonly Tool[]; add_generation_prompt?: boolean } = {},
): Promise<ChatPrompt> {
  const { tokenizer } = context.settings;
  if (tokenizer.chat_template === null)
    throw badParam(
      'messages',
      'This model has no chat template: it was not trained to chat. Send its text to /v1/completions as a prompt.',
      'no_chat_template',
    );
  messages.forEach(checkMessage);
  const given = messages.map(plainMessage);
  const options = { add_generation_prompt, ...(tools && { tools }) };
  const text = await tokenizer.apply_chat_template(given, { ...options, tokenize: false });
  checkText(text, 'messages');
  const ids = await tokenizer.encode(text, { add_special_tokens: false });
  checkIds(context, ids, 'messages');
  return { ids, marks: () => marksOf(context, given, text, ids, { ...options, add_generation_prompt: false }) };
}

/**
 * How many ids the chat has after its messages but the last: what the next request begins with as well. Where the ids of a part are
 * not those of the whole, there is no mark.
 */
async function marksOf(
  { settings: { tokenizer } }: ServerContext,
  messages: readonly TemplateMessage[],
  text: string,
  ids: readonly number[],
  options: { tools?: readonly Tool[]; add_generation_prompt: boolean },
): Promise<number[]> {
  const marks: number[] = [];
  // the last message, and the one before: earlier ones were marked by earlier requests
  for (const count of [messages.length - 1, messages.length]) {
    if (count < 1) continue;
    const part = await tokenizer
      .apply_chat_template(messages.slice(0, count), { ...options, tokenize: false })
      .catch(() => null);
    if (part === null || part === '' || !text.startsWith(part)) continue;
    const start = await tokenizer.encode(part, { add_special_tokens: false });
    if (start.length < ids.length && start.every((id, at) => id === ids[at])) marks.push(start.length);
  }
  return [...new Set(marks)];
}

function checkMessage({ content, role, tool_calls }: TemplateMessage, at: number): void {
  const name = `messages[${at}].content`;
  if (content == null) {
    if (role === 'assistant' && tool_calls != null) return;
    throw badParam(name, `'${name}' is missing; expected a text.`, 'missing_required_parameter');
  }
  if (!Array.isArray(content)) return;
  const wrong = (content as readonly { type?: string; text?: string }[]).findIndex(
    (part) => part.type !== 'text' || typeof part.text !== 'string',
  );
  if (wrong < 0) return;
  const { type } = (content as readonly { type?: string }[])[wrong]!;
  const part = `${name}[${wrong}]`;
  throw badParam(
    `${part}.type`,
    `'${part}' is of type '${String(type).slice(0, 40)}'; the model reads text alone: { type: 'text', text }.`,
    'unsupported_parameter',
  );
}

/** Parts as one text: most templates write a text only. Roles and arguments of calls as templates know them. */
function plainMessage(message: TemplateMessage): TemplateMessage {
  const { content, role, tool_calls } = message;
  const text = Array.isArray(content)
    ? (content as readonly { text: string }[]).map((part) => part.text).join('')
    : (content ?? '');
  const calls = Array.isArray(tool_calls) ? { tool_calls: tool_calls.map(withParsedArguments) } : {};
  return { ...withoutNulls(message), role: role === 'developer' ? 'system' : role, content: text, ...calls };
}

function withoutNulls(message: TemplateMessage): TemplateMessage {
  return Object.fromEntries(Object.entries(message).filter(([, value]) => value !== null)) as TemplateMessage;
}

/** Templates write arguments as JSON of an object; clients send them as a text of it. */
function withParsedArguments(call: unknown): unknown {
  const { function: called } = call as { function: { name: string; arguments: string } };
  try {
    const parsed: unknown = JSON.parse(called.arguments);
    return { ...(call as object), function: { ...called, arguments: parsed } };
  } catch {
    return call;
  }
}
