/** What requests hold, once the schemas of schemas.ts have passed them. */
import type { TemplateMessage } from '../tokenizers/index.js';

/** Fields that completions and chats have in common. */
export interface GenerationBody {
  model?: string | null;
  max_tokens?: number | null;
  n?: number | null;
  temperature?: number | null;
  top_p?: number | null;
  top_k?: number | null;
  min_p?: number | null;
  repetition_penalty?: number | null;
  presence_penalty?: number | null;
  frequency_penalty?: number | null;
  logit_bias?: Readonly<Record<string, number>> | null;
  seed?: number | null;
  stop?: string | readonly string[] | null;
  stream?: boolean | null;
  stream_options?: { include_usage?: boolean } | null;
  user?: string | null;
  prompt_cache_key?: string | null;
  priority?: number | null;
  state?: string | null;
  keep_state?: boolean | null;
}

/** A text, several, or their ids. */
export type PromptField = string | readonly (string | number | readonly number[])[];

export interface CompletionBody extends GenerationBody {
  prompt?: PromptField;
  echo?: boolean | null;
  logprobs?: number | null;
}

export interface Tool {
  type: 'function';
  function: {
    name: string;
    description?: string | null;
    parameters?: Readonly<Record<string, unknown>> | null;
    strict?: boolean | null;
  };
}

export interface ResponseFormat {
  type: 'text' | 'json_object' | 'json_schema';
  json_schema?: { name?: string; schema?: unknown; strict?: boolean | null };
}

export interface ChatBody extends GenerationBody {
  messages: readonly TemplateMessage[];
  max_completion_tokens?: number | null;
  logprobs?: boolean | null;
  top_logprobs?: number | null;
  response_format?: ResponseFormat | null;
  tools?: readonly Tool[] | null;
  tool_choice?: string | { type?: 'function'; function?: { name: string } } | null;
  parallel_tool_calls?: boolean | null;
}

export interface EmbeddingsBody {
  model?: string | null;
  input: PromptField;
  encoding_format?: 'float' | 'base64' | null;
  pooling?: 'mean' | 'last' | null;
  normalize?: boolean | null;
}

export interface TokenizeBody {
  model?: string | null;
  prompt?: string;
  messages?: readonly TemplateMessage[];
  add_special_tokens?: boolean | null;
  add_generation_prompt?: boolean | null;
  return_token_strs?: boolean | null;
}

export interface DetokenizeBody {
  model?: string | null;
  tokens: readonly number[];
  skip_special_tokens?: boolean | null;
}

export interface StatesBody {
  prompt?: string | readonly number[];
  messages?: readonly TemplateMessage[];
  state?: string | null;
}
