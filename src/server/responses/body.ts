/** What requests to `/v1/responses` hold, once their schema has passed them, and the same as a chat. */
import type { ChatBody, GenerationBody, Tool } from '../bodies.js';
import { ApiError, toApiError } from '../errors.js';

export interface ResponseTool {
  type: 'function';
  name: string;
  description?: string | null;
  parameters?: Readonly<Record<string, unknown>> | null;
  strict?: boolean | null;
}

export interface TextFormat {
  type: 'text' | 'json_object' | 'json_schema';
  name?: string;
  description?: string | null;
  schema?: unknown;
  strict?: boolean | null;
}

/** An item of the input: a message, a call, or what a call gave. */
export type InputItem = Readonly<Record<string, unknown>>;

export interface ResponsesBody extends Omit<
  GenerationBody,
  'max_tokens' | 'n' | 'stop' | 'stream_options' | 'state' | 'keep_state'
> {
  input: string | readonly InputItem[];
  instructions?: string | null;
  max_output_tokens?: number | null;
  text?: { format?: TextFormat | null } | null;
  tools?: readonly ResponseTool[] | null;
  tool_choice?: string | { type?: 'function'; name?: string } | null;
  parallel_tool_calls?: boolean | null;
  previous_response_id?: string | null;
  store?: boolean | null;
  metadata?: Readonly<Record<string, string>> | null;
}

/** The same as a chat, but for its messages. */
export function chatOf(body: ResponsesBody): Omit<ChatBody, 'messages'> {
  const { text, tools, tool_choice: choice, max_output_tokens } = body;
  const format = text?.format;
  return {
    ...body,
    max_tokens: max_output_tokens ?? null,
    response_format: format && {
      type: format.type,
      ...(format.type === 'json_schema' && { json_schema: { schema: format.schema } }),
    },
    tools: tools?.map(chatTool) ?? null,
    tool_choice:
      typeof choice === 'object' && choice !== null
        ? { type: 'function', function: { name: choice.name ?? '' } }
        : choice,
  };
}

function chatTool({ type, ...called }: ResponseTool): Tool {
  return { type, function: called };
}

/** Fields of chats by the names that they have here. */
const NAMES: readonly (readonly [chat: RegExp, here: string])[] = [
  [/\bresponse_format\.json_schema\b/g, 'text.format'],
  [/\bresponse_format\b/g, 'text.format'],
  [/\btools\[(\d+)\]\.function\b/g, 'tools[$1]'],
  [/\bmax_(?:completion_)?tokens\b/g, 'max_output_tokens'],
  [/\bmessages\b/g, 'input'],
];

/** What went wrong with a chat, in the words of this path. */
export function inWordsOfHere(failure: unknown): ApiError {
  const error = toApiError(failure);
  const words = (text: string): string => NAMES.reduce((told, [chat, here]) => told.replace(chat, here), text);
  const { status, type, param, code, retry, retry_after } = error;
  return new ApiError(words(error.message), {
    ...{ status, type, code, retry, cause: error.cause },
    param: param === null ? null : words(param),
    ...(retry_after !== null && { retry_after }),
  });
}
