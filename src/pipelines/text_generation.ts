import { ArgumentError } from '../base/errors.js';
import { resolveOptions } from '../generation/generate.js';
import { generate as generateIds } from '../generation/index.js';
import type { GenerateInputs, GenerationEngine, ResolvedOptions } from '../generation/index.js';
import { goOn } from '../tokenizers/chat_template.js';
import type { ChatMessage, ChatTemplateOptions, TemplateMessage, Tokenizer } from '../tokenizers/index.js';
import type { Loaded, PipelineModel } from './load.js';

/** One chat. */
export type Chat<M extends TemplateMessage = TemplateMessage> = readonly M[];

/** Options of a call, beside those of generate(). */
export interface TextGenerationOptions extends Omit<
  GenerateInputs,
  'input_ids' | 'attention_mask' | 'state' | 'history' | 'return_state' | 'first_stream'
> {
  /** Returns the prompt with the new text (default), or the new text alone. */
  return_full_text?: boolean;
  /** Returns ids (generated_token_ids) rather than text. Default false. */
  return_tensors?: boolean;
  /** Prompts that are run together. Default 1. What comes out is the same for any number. */
  batch_size?: number;
  /** Text put before each prompt, for the model only. */
  prefix?: string;
  /** Leaves special tokens out of the text. Default true. */
  skip_special_tokens?: boolean;
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

/** pipeline('text-generation', …): a function of one or more prompts or chats. */
export interface TextGenerationPipeline {
  (prompt: string, options?: TextGenerationOptions): Promise<GeneratedText[]>;
  (prompts: readonly string[], options?: TextGenerationOptions): Promise<GeneratedText[][]>;
  <M extends TemplateMessage>(chat: Chat<M>, options?: TextGenerationOptions): Promise<GeneratedChat<M>[]>;
  <M extends TemplateMessage>(
    chats: readonly Chat<M>[],
    options?: TextGenerationOptions,
  ): Promise<GeneratedChat<M>[][]>;
  readonly task: 'text-generation';
  readonly model: PipelineModel;
  readonly tokenizer: Tokenizer;
  /** Disposes of the model, if the pipeline loaded it. */
  dispose(): void;
}

/** A prompt on its way: what was given, its ids, and how its text goes on. */
interface Item {
  input: string | Chat;
  ids: number[];
  /** The last message is gone on with. */
  continues: boolean;
}

/** Makes the function that pipeline('text-generation', …) returns. */
export function textGenerationPipeline({ model, tokenizer, owned }: Loaded<PipelineModel>): TextGenerationPipeline {
  const call = async (
    input: string | Chat | readonly string[] | readonly Chat[],
    options: TextGenerationOptions = {},
  ): Promise<TextGenerationOutput[] | TextGenerationOutput[][]> => {
    const { inputs, single } = sortOut(input);
    const rows = await run(model, tokenizer, inputs, options);
    return single ? rows[0]! : rows;
  };
  const parts = { task: 'text-generation' as const, model, tokenizer, dispose: () => owned && model.dispose() };
  return Object.assign(call, parts) as unknown as TextGenerationPipeline;
}

const isMessage = (value: unknown): boolean => typeof (value as TemplateMessage | null)?.role === 'string';

function sortOut(input: unknown): { inputs: (string | Chat)[]; single: boolean } {
  if (typeof input === 'string') return { inputs: [input], single: true };
  if (Array.isArray(input) && input.length > 0) {
    if (input.every(isMessage)) return { inputs: [input as Chat], single: true };
    const each = input.every((v) => typeof v === 'string' || (Array.isArray(v) && v.length > 0 && v.every(isMessage)));
    if (each) return { inputs: input as (string | Chat)[], single: false };
  }
  throw new ArgumentError(
    `The text-generation pipeline got ${JSON.stringify(input)?.slice(0, 60)}; expected a text, a list of texts, a chat ` +
      `([{ role, content }, …]), or a list of chats.`,
    { got: input },
  );
}

/** Options that are the pipeline's, not generate()'s. */
const OWN_OPTIONS = new Set([
  'return_full_text',
  'return_tensors',
  'batch_size',
  'prefix',
  'skip_special_tokens',
  'clean_up_tokenization_spaces',
  'add_special_tokens',
  'continue_final_message',
  'chat_template_options',
]);

async function run(
  model: PipelineModel,
  tokenizer: Tokenizer,
  inputs: readonly (string | Chat)[],
  options: TextGenerationOptions,
): Promise<TextGenerationOutput[][]> {
  const { return_full_text = true, return_tensors = false, batch_size = 1, skip_special_tokens = true } = options;
  const decoding = { skip_special_tokens, clean_up_tokenization_spaces: options.clean_up_tokenization_spaces };
  const generate = Object.fromEntries(Object.entries(options).filter(([key]) => !OWN_OPTIONS.has(key))) as Partial<
    Omit<GenerateInputs, 'input_ids'>
  >;
  const { items, engine, resolved } = await prepare(model, tokenizer, inputs, options, generate).catch((error) => {
    // Whoever reads from the streamer must not wait for ever; later failures are told it by generate().
    generate.streamer?.fail?.(error);
    throw error;
  });
  // The seed is drawn once: rows of later batches go on with further streams of the same seed.
  const seed = resolved.seed ?? Math.floor(Math.random() * 2 ** 32);
  const copies = resolved.num_return_sequences;
  const results = new Array<TextGenerationOutput[]>(items.length);
  for (const batch of batches(items, batch_size, generate.streamer != null)) {
    const { new_tokens } = await generateIds(engine, model.generation_config, {
      tokenizer,
      ...generate,
      seed,
      first_stream: batch.map((i) => i * copies),
      input_ids: batch.map((i) => items[i]!.ids),
    });
    for (const [b, i] of batch.entries()) {
      const item = items[i]!;
      const rows = new_tokens.slice(b * copies, (b + 1) * copies);
      results[i] = await Promise.all(
        rows.map(async (tokens): Promise<TextGenerationOutput> => {
          if (return_tensors) return { generated_token_ids: [...(return_full_text ? item.ids : []), ...tokens] };
          const text = await newText(tokenizer, item.ids, tokens, decoding);
          return { generated_text: return_full_text ? whole(item, text) : text };
        }),
      );
    }
  }
  return results;
}

async function prepare(
  model: PipelineModel,
  tokenizer: Tokenizer,
  inputs: readonly (string | Chat)[],
  options: TextGenerationOptions,
  generate: Partial<Omit<GenerateInputs, 'input_ids'>>,
): Promise<{ items: Item[]; engine: GenerationEngine; resolved: ResolvedOptions }> {
  const { batch_size = 1 } = options;
  if (!Number.isInteger(batch_size) || batch_size < 1) {
    throw new ArgumentError(`batch_size is ${String(batch_size)}; expected an integer of 1 or more.`, {
      option: 'batch_size',
      got: batch_size,
    });
  }
  const items = await Promise.all(inputs.map((input) => encode(tokenizer, input, options)));
  const resolved = resolveOptions(model.generation_config, { ...generate, input_ids: [] });
  return { items, engine: await model.engine(), resolved };
}

/** Which items are run together: those of like length, so that little padding is fed; in their order when streamed. */
function batches(items: readonly Item[], size: number, inOrder: boolean): number[][] {
  const order = [...items.keys()];
  if (!inOrder && size > 1) order.sort((a, b) => items[b]!.ids.length - items[a]!.ids.length || a - b);
  return Array.from({ length: Math.ceil(order.length / size) }, (_, k) => order.slice(k * size, (k + 1) * size));
}

async function encode(tokenizer: Tokenizer, input: string | Chat, options: TextGenerationOptions): Promise<Item> {
  if (typeof input === 'string') {
    const text = (options.prefix ?? '') + input;
    const ids = await tokenizer.encode(text, { add_special_tokens: options.add_special_tokens });
    return { input, ids, continues: false };
  }
  const given = options.chat_template_options ?? {};
  const answered = input.at(-1)!.role === 'assistant' && !given.add_generation_prompt;
  const continues = options.continue_final_message ?? given.continue_final_message ?? answered;
  const ids = await tokenizer.apply_chat_template(input, {
    ...given,
    add_generation_prompt: given.add_generation_prompt ?? !continues,
    continue_final_message: continues,
  });
  return { input, ids, continues };
}

/** The text of the new ids in their place after the prompt: some decoders treat the first id of a text differently. */
async function newText(
  tokenizer: Tokenizer,
  prompt: readonly number[],
  tokens: readonly number[],
  options: { skip_special_tokens: boolean; clean_up_tokenization_spaces?: boolean },
): Promise<string> {
  const before = await tokenizer.decode(prompt, options);
  return (await tokenizer.decode([...prompt, ...tokens], options)).slice(before.length);
}

function whole(item: Item, text: string): string | TemplateMessage[] {
  if (typeof item.input === 'string') return item.input + text;
  const chat = item.input.map((message) => ({ ...message }));
  if (!item.continues) return [...chat, { role: 'assistant', content: text }];
  return [...chat.slice(0, -1), goOn(chat.at(-1)!, text).message];
}
