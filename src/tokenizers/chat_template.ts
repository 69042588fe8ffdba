import { ChatTemplateError, TokenizerError } from '../base/errors.js';
import { JinjaTemplate } from './jinja/interpreter.js';
import { quote } from '../base/quote.js';

/** One turn of a chat. Templates may read further keys (name, tool_calls …). */
export interface ChatMessage {
  role: 'system' | 'user' | 'assistant' | (string & {});
  content: string;
  [key: string]: unknown;
}

/**
 * One turn of a chat in any form that templates read: with a text, with a list of parts ({ type: 'text', text } …), or
 * without content where other keys (tool_calls …) say something.
 */
export interface TemplateMessage {
  role: ChatMessage['role'];
  content?: string | readonly unknown[] | null;
  [key: string]: unknown;
}

/** Options of apply_chat_template. */
export interface ChatTemplateOptions {
  /** A template to use instead of the tokenizer's own: its text, or the name of one of several. Default: 'default'. */
  chat_template?: string | null;
  /** Ends the text with the tokens that begin an answer. Default false. */
  add_generation_prompt?: boolean;
  /** Leaves the last message open, so that the model goes on with it. Default false. */
  continue_final_message?: boolean;
  /** Tools offered to the model, for templates that list them. */
  tools?: readonly unknown[] | null;
  /** Documents offered to the model, for templates that list them. */
  documents?: readonly unknown[] | null;
  /** Further values that the template reads. */
  template_variables?: Record<string, unknown>;
}

const compiled = new Map<string, JinjaTemplate>();

/**
 * Renders a chat with a Jinja template, as transformers' apply_chat_template does.
 *
 * @param messages the chat, oldest first
 * @param templates the tokenizer's templates by name
 * @param specialTokens bos_token, eos_token … as the template sees them
 * @throws TokenizerError without a template, for a chat that is not one, or when the template refuses it
 */
export function renderChat(
  messages: readonly TemplateMessage[],
  templates: Readonly<Record<string, string>>,
  specialTokens: Readonly<Record<string, string>>,
  options: ChatTemplateOptions = {},
): string {
  checkMessages(messages);
  const template = pick(templates, options.chat_template);
  const last = messages.at(-1)!;
  const open = options.continue_final_message ? goOn(last, TAG) : null;
  const text = render(template, {
    ...specialTokens,
    ...options.template_variables,
    messages: open ? [...messages.slice(0, -1), open.message] : messages,
    tools: options.tools ?? null,
    documents: options.documents ?? null,
    add_generation_prompt: options.add_generation_prompt ?? false,
  });
  return open ? cutAtTag(text, open.before) : text;
}

function checkMessages(messages: readonly TemplateMessage[]): void {
  if (!Array.isArray(messages) || messages.length === 0) {
    throw new TokenizerError('A chat must hold at least one message: expected [{ role, content }, …].', {
      got: messages,
    });
  }
  messages.forEach((message: TemplateMessage | undefined, index) => {
    if (typeof message?.role !== 'string' || !saysSomething(message)) {
      throw new TokenizerError(
        `Message ${index} of the chat is ${quote(message)}; expected { role: string, content: string }. ` +
          `The content may be a list of parts, and be left out where there are tool_calls or another key.`,
        { index, got: message },
      );
    }
  });
}

function saysSomething(message: TemplateMessage): boolean {
  const { content } = message;
  if (content !== null && content !== undefined) return typeof content === 'string' || Array.isArray(content);
  return Object.entries(message).some(([key, value]) => key !== 'role' && value !== null && value !== undefined);
}

function pick(templates: Readonly<Record<string, string>>, wanted: string | null | undefined): string {
  if (wanted != null) return templates[wanted] ?? wanted;
  if (templates.default !== undefined) return templates.default;
  const names = Object.keys(templates);
  throw new TokenizerError(
    names.length === 0
      ? 'This tokenizer has no chat template: its model was not trained to chat. Give a template by the option ' +
          'chat_template (or in a file chat_template.jinja beside tokenizer.json), or pass plain text.'
      : `This tokenizer has several chat templates (${names.join(', ')}) and none called 'default': name one by the ` +
          `option chat_template.`,
    { templates: names },
  );
}

function render(source: string, variables: Record<string, unknown>): string {
  try {
    let template = compiled.get(source);
    if (!template) compiled.set(source, (template = new JinjaTemplate(source)));
    return template.render(variables);
  } catch (cause) {
    throw new ChatTemplateError(
      `The chat template does not take this chat: ${(cause as Error).message}`,
      { template: source.slice(0, 200) },
      { cause },
    );
  }
}

/**
 * Stands at the end of a message that is left open, while the template writes it: what the template writes after the
 * message is cut off there, whatever it is. The space at its end tells whether the template trims (transformers'
 * chat_template_utils.py).
 */
const TAG = 'CONTINUE_FINAL_MESSAGE_TAG ';

/**
 * A message with further text at the end of its content: of the last part that is text, where it has parts.
 *
 * @returns the new message, and the text before
 * @throws TokenizerError where there is no text to go on with
 */
export function goOn<M extends TemplateMessage>(message: M, text: string): { message: M; before: string } {
  const { content } = message;
  if (typeof content === 'string') return { message: { ...message, content: content + text }, before: content };
  const parts = Array.isArray(content) ? (content as readonly { text?: unknown }[]) : [];
  const at = parts.findLastIndex((part) => typeof part?.text === 'string');
  if (at < 0) {
    throw new TokenizerError(
      `continue_final_message goes on with the text of the last message, and that is ` +
        `${quote(message)}. Give it content, or use add_generation_prompt.`,
      { got: message },
    );
  }
  const before = parts[at]!.text as string;
  const longer = parts.map((part, index) => (index === at ? { ...part, text: before + text } : part));
  return { message: { ...message, content: longer }, before };
}

/** Cuts a rendered chat after the content of its last message, so that no end-of-turn token closes it. */
function cutAtTag(text: string, content: string): string {
  const at = text.lastIndexOf(TAG.trim());
  if (at < 0 || !text.includes(content.trim())) {
    throw new TokenizerError(
      'continue_final_message needs the content of the last message to appear in the text, and the template left it out ' +
        'or changed it. Use another template, or add_generation_prompt.',
      { content },
    );
  }
  return text.startsWith(TAG, at) ? text.slice(0, at) : text.slice(0, at).trimEnd();
}
