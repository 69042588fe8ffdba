/** Options and results of a text-generation pipeline, and the table of its calls. */
import { omit } from '../base/omit.js';
import * as kinds from '../base/option_kinds.js';
import { type OptionRules, OptionTable, type OtherNames } from '../base/options.js';
import type { FinishReason, GenerateInputs } from '../generation/index.js';
import { INPUT_RULES } from '../generation/inputs.js';
import { GENERATION_OTHERS, GENERATION_RULES } from '../generation/option_rules.js';
import type { ChatMessage, ChatTemplateOptions, TemplateMessage } from '../tokenizers/index.js';

/** Options of a call, beside those of generate(). */
export interface TextGenerationOptions extends Omit<
  GenerateInputs,
  | 'input_ids'
  | 'attention_mask'
  | 'state'
  | 'history'
  | 'return_state'
  | 'first_stream'
  | 'return_dict_in_generate'
  | 'output_scores'
  | 'output_logits'
> {
  /** Returns the prompt with the new text (default), or the new text alone. */
  return_full_text?: boolean;
  /** Returns ids (generated_token_ids) rather than text. Default false. */
  return_tensors?: boolean;
  /** Returns with each text why it ended and how many tokens it has. Default false. */
  return_dict?: boolean;
  /** Prompts that are run together. Default: the pipeline's, else 1. What comes out is the same for any number. */
  batch_size?: number;
  /** Text put before each prompt, for the model only. */
  prefix?: string;
  /** Leaves special tokens out of the text. Default true. */
  skip_special_tokens?: boolean;
  /** Takes out the spaces that some tokenizers put before punctuation. Default: as the tokenizer says. */
  clean_up_tokenization_spaces?: boolean;
  /** Adds the tokenizer's special tokens to a prompt. Default true, and never for a chat. */
  add_special_tokens?: boolean;
  /** Goes on with the last message of a chat instead of answering it. Default: where the assistant wrote it. */
  continue_final_message?: boolean;
  /** Further options of the chat template. An add_generation_prompt there wins over what the pipeline would set. */
  chat_template_options?: ChatTemplateOptions;
}

/** What comes out for each row. */
export interface TextGenerationOutput {
  /** The text; for a chat with return_full_text the chat with the answer. */
  generated_text?: string | TemplateMessage[];
  /** With return_tensors. */
  generated_token_ids?: number[];
}

/** A row of a text prompt. */
export interface GeneratedText extends TextGenerationOutput {
  generated_text: string;
}

/** A row of a chat: the messages given, and the answer. */
export interface GeneratedChat<M extends TemplateMessage = ChatMessage> extends TextGenerationOutput {
  generated_text: (M | ChatMessage)[];
}

/** What return_dict adds to each row. */
export interface GenerationCounts {
  /** Why the text ended: the end token, the greatest length, a stop string, the time, a criterion of the caller's or an abort. */
  finish_reason: FinishReason;
  /** Tokens of the prompt, with what was put around it. */
  prompt_tokens: number;
  /** Tokens that were written, the end token included. */
  completion_tokens: number;
}

/** The options that are the pipeline's own, and not generate()'s. */
type OwnOptions = Omit<TextGenerationOptions, keyof GenerateInputs>;

const OWN_RULES: OptionRules<OwnOptions> = {
  return_full_text: { kind: kinds.boolean, default: true },
  return_tensors: { kind: kinds.boolean, default: false },
  return_dict: { kind: kinds.boolean, default: false },
  batch_size: { kind: kinds.integer({ min: 1 }) },
  prefix: { kind: kinds.anyText },
  skip_special_tokens: { kind: kinds.boolean, default: true },
  clean_up_tokenization_spaces: { kind: kinds.boolean },
  add_special_tokens: { kind: kinds.boolean },
  continue_final_message: { kind: kinds.boolean },
  chat_template_options: { kind: kinds.object },
};

const GIVEN = 'the pipeline makes it of the prompt';

const OTHERS: OtherNames = {
  ...omit(GENERATION_OTHERS, 'return_dict'),
  input_ids: { why: GIVEN },
  attention_mask: { why: GIVEN },
  state: { why: 'a pipeline begins anew; go on from a state with model.generate()', off: [null] },
  history: { why: 'a pipeline begins anew; go on from a state with model.generate()', off: [null] },
  return_state: { why: 'call model.generate() for the state', off: [false, null] },
  first_stream: { why: 'the pipeline numbers the streams of its batches' },
  return_dict_in_generate: 'return_dict',
  output_scores: { why: 'call model.generate() for scores', off: [false, null] },
  output_logits: { why: 'call model.generate() for logits', off: [false, null] },
  return_text: { why: 'it is returned unless return_tensors is set', off: [true] },
  return_type: { why: 'use return_full_text or return_tensors' },
  stop_sequence: 'stop_strings',
  stop: 'stop_strings',
  handle_long_generation: { why: 'a recurrent state has no greatest length', off: [null] },
  truncation: { why: 'a prompt may be of any length: a recurrent state has no greatest one', off: [false, null] },
  padding: { why: 'rows are padded as batches need it, which changes nothing', off: [true, false] },
  generate_kwargs: { why: 'pass the options of generate() beside the others' },
  tokenizer_kwargs: { why: 'pass the options of the tokenizer beside the others' },
  tokenizer_encode_kwargs: { why: 'pass add_special_tokens or chat_template_options' },
  tools: { why: 'pass chat_template_options: { tools }' },
  documents: { why: 'pass chat_template_options: { template_variables: { documents } }' },
  chat_template: { why: 'pass chat_template_options: { chat_template }' },
  add_generation_prompt: { why: 'pass chat_template_options: { add_generation_prompt }' },
  callback_function: 'streamer',
  abort_signal: 'signal',
  num_workers: { why: 'texts are prepared in one thread; batch_size runs several together', off: [0, 1] },
};

/** Options of the calls of a text-generation pipeline. */
export const TEXT_GENERATION_TABLE = new OptionTable<TextGenerationOptions>(
  'The text-generation pipeline',
  {
    ...OWN_RULES,
    ...omit(GENERATION_RULES, 'return_dict_in_generate', 'output_scores', 'output_logits'),
    ...omit(INPUT_RULES, 'input_ids', 'attention_mask', 'state', 'history', 'return_state', 'first_stream'),
  },
  { others: OTHERS },
);

/** The options that are generate()'s. */
export function generateOptions(options: TextGenerationOptions): Omit<TextGenerationOptions, keyof OwnOptions> {
  return omit(options, ...(Object.keys(OWN_RULES) as (keyof OwnOptions)[]));
}
