/** Items of a response's input as messages of a chat. */
import type { TemplateMessage } from '../../tokenizers/index.js';
import { badParam, unsupported } from '../errors.js';
import type { InputItem } from './body.js';

const ROLES = ['developer', 'system', 'user', 'assistant'];
const TEXT_PARTS = ['input_text', 'output_text', 'text'];

/** @throws ApiError for an item that is none, or of a type that the model cannot read, by its place */
export function messagesOf(input: string | readonly InputItem[]): TemplateMessage[] {
  if (typeof input === 'string') return [{ role: 'user', content: input }];
  const messages: TemplateMessage[] = [];
  for (const [index, item] of input.entries()) {
    const at = `input[${index}]`;
    const message = messageOf(item, at);
    const last = messages.at(-1);
    // the calls of one answer stand in one message, with its text
    if (message.tool_calls && last?.role === 'assistant')
      last.tool_calls = [...((last.tool_calls as unknown[] | undefined) ?? []), ...(message.tool_calls as unknown[])];
    else messages.push(message);
  }
  return messages;
}

function messageOf(item: InputItem, at: string): TemplateMessage {
  const { type = 'message' } = item;
  switch (type) {
    case 'message': {
      const { role } = item;
      if (typeof role !== 'string' || !ROLES.includes(role))
        throw badParam(`${at}.role`, `'${at}.role' is none of ${ROLES.join(', ')}.`, 'invalid_value');
      return { role, content: textOf(item.content, `${at}.content`) };
    }
    case 'function_call': {
      const [call_id, name, args] = ['call_id', 'name', 'arguments'].map((field) => fieldOf(item, field, at));
      const call = { id: call_id, type: 'function', function: { name, arguments: args } };
      return { role: 'assistant', content: '', tool_calls: [call] };
    }
    case 'function_call_output':
      return {
        role: 'tool',
        tool_call_id: fieldOf(item, 'call_id', at),
        content: textOf(item.output, `${at}.output`),
      };
    default:
      throw unsupported(
        `${at}.type`,
        'the model reads messages, function_call and function_call_output, and nothing is fetched or run here',
      );
  }
}

function fieldOf(item: InputItem, field: string, at: string): string {
  const value = item[field];
  if (typeof value === 'string') return value;
  throw badParam(
    `${at}.${field}`,
    `'${at}.${field}' is ${value === undefined ? 'missing' : 'no text'}.`,
    value === undefined ? 'missing_required_parameter' : 'invalid_type',
  );
}

function textOf(content: unknown, at: string): string {
  if (typeof content === 'string') return content;
  if (!Array.isArray(content))
    throw badParam(
      at,
      `'${at}' is ${content == null ? 'missing' : 'neither a text nor a list of parts'}.`,
      'invalid_type',
    );
  return content
    .map((part: unknown, index) => {
      const { type, text } = (part ?? {}) as { type?: unknown; text?: unknown };
      if (TEXT_PARTS.includes(type as string) && typeof text === 'string') return text;
      throw unsupported(`${at}[${index}].type`, 'the model reads text alone: { type: "input_text", text }');
    })
    .join('');
}
