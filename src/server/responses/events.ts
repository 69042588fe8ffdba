/** The events of one response, in the order in which clients put it together again; the last of them holds the whole. */
import { randomUUID } from 'node:crypto';
import type { TemplateMessage } from '../../tokenizers/index.js';
import type { ChoiceEvent, Usage } from '../choices.js';
import type { AnswerReader, Delta } from '../tools/reader.js';

export interface ResponseEvent {
  type: string;
  sequence_number: number;
  [field: string]: unknown;
}

type Item = Record<string, unknown> & { id: string; status: string };
type Call = NonNullable<Delta['tool_calls']>[number];

const newId = (prefix: string): string => `${prefix}_${randomUUID().replaceAll('-', '')}`;

export class ResponseEvents {
  readonly id = newId('resp');
  private readonly created_at = Math.floor(Date.now() / 1000);
  private readonly output: Item[] = [];
  private sequence = 0;
  /** The message that is being written. */
  private message: { item: Item; text: string } | null = null;
  private content = '';
  private readonly calls: object[] = [];

  /** @param settings fields of the response that say what was asked for */
  constructor(
    private readonly settings: Readonly<Record<string, unknown>>,
    private readonly reader: AnswerReader,
  ) {}

  /** The answer as a message of the conversation. */
  get answer(): TemplateMessage {
    return {
      role: 'assistant',
      content: this.content,
      ...(this.calls.length > 0 && { tool_calls: this.calls }),
    };
  }

  async *of(
    choices: AsyncIterable<ChoiceEvent>,
    usage: () => Usage,
    done: (response: Record<string, unknown>) => void,
  ): AsyncGenerator<ResponseEvent, void, undefined> {
    for (const type of ['created', 'in_progress'])
      yield this.event(`response.${type}`, { response: this.response('in_progress') });
    let cut = false;
    for await (const { text, finish_reason } of choices) {
      const { content, tool_calls } = this.reader.push(text, finish_reason !== null);
      if (content !== undefined) yield* this.write(content);
      for (const call of tool_calls ?? []) yield* this.call(call);
      cut = finish_reason === 'length';
    }
    // an answer without a word is a message all the same
    if (this.output.length === 0) yield* this.write('');
    yield* this.endMessage(cut ? 'incomplete' : 'completed');
    const status = cut ? 'incomplete' : 'completed';
    const response = this.response(status, usage());
    done(response);
    yield this.event(`response.${status}`, { response });
  }

  private *write(text: string): Generator<ResponseEvent, void, undefined> {
    if (!this.message) {
      const item = { id: newId('msg'), type: 'message', status: 'in_progress', role: 'assistant', content: [] };
      this.message = { item, text: '' };
      yield this.added(item);
      yield this.event('response.content_part.added', { ...this.place(), part: part('') });
    }
    this.message.text += text;
    this.content += text;
    if (text === '') return;
    yield this.event('response.output_text.delta', { ...this.place(), delta: text, logprobs: [] });
  }

  private *endMessage(status: string): Generator<ResponseEvent, void, undefined> {
    if (!this.message) return;
    const { item, text } = this.message;
    yield this.event('response.output_text.done', { ...this.place(), text, logprobs: [] });
    yield this.event('response.content_part.done', { ...this.place(), part: part(text) });
    yield this.done({ ...item, status, content: [part(text)] });
    this.message = null;
  }

  private *call({ id, function: called }: Call): Generator<ResponseEvent, void, undefined> {
    yield* this.endMessage('completed');
    const { name = '', arguments: args = '' } = called;
    const call_id = id ?? newId('call');
    const item = { id: newId('fc'), type: 'function_call', status: 'in_progress', arguments: '', call_id, name };
    yield this.added(item);
    const place = { item_id: item.id, output_index: this.output.length - 1 };
    yield this.event('response.function_call_arguments.delta', { ...place, delta: args });
    yield this.event('response.function_call_arguments.done', { ...place, name, arguments: args });
    yield this.done({ ...item, status: 'completed', arguments: args });
    this.calls.push({ id: call_id, type: 'function', function: { name, arguments: args } });
  }

  private added(item: Item): ResponseEvent {
    this.output.push(item);
    return this.event('response.output_item.added', { output_index: this.output.length - 1, item });
  }

  private done(item: Item): ResponseEvent {
    const output_index = this.output.length - 1;
    this.output[output_index] = item;
    return this.event('response.output_item.done', { output_index, item });
  }

  /** Where the text of the message stands. */
  private place(): object {
    return { item_id: this.message!.item.id, output_index: this.output.length - 1, content_index: 0 };
  }

  private event(type: string, fields: object): ResponseEvent {
    return { type, sequence_number: this.sequence++, ...fields };
  }

  private response(status: string, usage: Usage | null = null): Record<string, unknown> {
    return {
      id: this.id,
      object: 'response',
      created_at: this.created_at,
      status,
      error: null,
      incomplete_details: status === 'incomplete' ? { reason: 'max_output_tokens' } : null,
      ...this.settings,
      output: status === 'in_progress' ? [] : [...this.output],
      usage: usage && {
        input_tokens: usage.prompt_tokens,
        input_tokens_details: usage.prompt_tokens_details,
        output_tokens: usage.completion_tokens,
        output_tokens_details: { reasoning_tokens: 0 },
        total_tokens: usage.total_tokens,
      },
    };
  }
}

function part(text: string): object {
  return { type: 'output_text', text, annotations: [], logprobs: [] };
}
