import { ArgumentError } from '../base/errors.js';
import { quote } from '../base/quote.js';
import { resolveCall, tellingStreamer } from '../generation/generate.js';
import { generate as generateIds } from '../generation/index.js';
import type { GenerationEngine, ResolvedOptions } from '../generation/index.js';
import { goOn } from '../tokenizers/chat_template.js';
import type { TemplateMessage, Tokenizer } from '../tokenizers/index.js';
import { batchesOf } from './batches.js';
import type { Loaded, PipelineModel } from './load.js';
import {
  type GeneratedChat,
  type GeneratedText,
  generateOptions,
  type GenerationCounts,
  TEXT_GENERATION_TABLE,
  type TextGenerationOptions,
  type TextGenerationOutput,
} from './text_generation_options.js';
import { GENERATION_WARMUP_TABLE, type GenerationWarmupOptions, warmUpGeneration } from '../generation/warmup.js';

/** One chat. */
export type Chat<M extends TemplateMessage = TemplateMessage> = readonly M[];

/** A call that returns finish reasons and counts, too. */
type Counted = TextGenerationOptions & { return_dict: true };

/** pipeline('text-generation', …): a function of one or more prompts or chats. */
export interface TextGenerationPipeline {
  (prompt: string, options: Counted): Promise<(GeneratedText & GenerationCounts)[]>;
  (prompts: readonly string[], options: Counted): Promise<(GeneratedText & GenerationCounts)[][]>;
  <M extends TemplateMessage>(chat: Chat<M>, options: Counted): Promise<(GeneratedChat<M> & GenerationCounts)[]>;
  <M extends TemplateMessage>(
    chats: readonly Chat<M>[],
    options: Counted,
  ): Promise<(GeneratedChat<M> & GenerationCounts)[][]>;
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
  /**
   * Compiles what calls with these batch sizes and lengths of prompts will run, so that the first of them is as fast as all.
   * @throws ArgumentError for a wrong option; the signal's reason
   */
  warmup(options?: GenerationWarmupOptions): Promise<void>;
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
export function textGenerationPipeline(loaded: Loaded<PipelineModel>): TextGenerationPipeline {
  const { model, tokenizer, owned } = loaded;
  const call = async (
    input: string | Chat | readonly string[] | readonly Chat[],
    options: TextGenerationOptions = {},
  ): Promise<TextGenerationOutput[] | TextGenerationOutput[][]> => {
    // Whoever reads from the streamer must not wait for ever; later failures are told it by generate().
    const prepared = await tellingStreamer({ streamer: options?.streamer }, async () => {
      TEXT_GENERATION_TABLE.check(options);
      const resolved = resolveCall(model.generation_config, { ...generateOptions(options), input_ids: [] });
      const { inputs, single } = sortOut(input);
      options.signal?.throwIfAborted();
      const items = await Promise.all(inputs.map((each) => encode(tokenizer, each, options)));
      return { items, engine: await model.engine(), resolved, single };
    });
    const rows = await run(loaded, prepared, options);
    return prepared.single ? rows[0]! : rows;
  };
  const warmup = async (options: GenerationWarmupOptions = {}): Promise<void> => {
    GENERATION_WARMUP_TABLE.check(options);
    return warmUpGeneration(await model.engine(), model.generation_config, options);
  };
  const parts = { task: 'text-generation' as const, model, tokenizer, warmup, dispose: () => owned && model.dispose() };
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
    `The text-generation pipeline got ${quote(input)}; expected a text, a list of texts, a chat ` +
      `([{ role, content }, …]), or a list of chats.`,
    { got: input },
  );
}

interface Prepared {
  items: Item[];
  engine: GenerationEngine;
  resolved: ResolvedOptions;
}

async function run(
  { model, tokenizer, batch_size: size }: Loaded<PipelineModel>,
  { items, engine, resolved }: Prepared,
  options: TextGenerationOptions,
): Promise<TextGenerationOutput[][]> {
  const { return_full_text = true, return_tensors = false, batch_size = size, skip_special_tokens = true } = options;
  const decoding = { skip_special_tokens, clean_up_tokenization_spaces: options.clean_up_tokenization_spaces };
  const generate = generateOptions(options);
  // The seed is drawn once: rows of later batches go on with further streams of the same seed.
  const seed = resolved.seed ?? Math.floor(Math.random() * 2 ** 32);
  const copies = resolved.num_return_sequences;
  const results = new Array<TextGenerationOutput[]>(items.length);
  const lengths = items.map(({ ids }) => ids.length);
  for (const batch of batchesOf(lengths, batch_size, generate.streamer != null)) {
    const { new_tokens, finish_reasons } = await generateIds(engine, model.generation_config, {
      tokenizer,
      ...generate,
      seed,
      first_stream: batch.map((i) => i * copies),
      input_ids: batch.map((i) => items[i]!.ids),
      // all text: what the tokenizer gave may hold the pad token's id
      attention_mask: batch.map((i) => items[i]!.ids.map(() => 1)),
    });
    for (const [b, i] of batch.entries()) {
      const item = items[i]!;
      const first = b * copies;
      results[i] = await Promise.all(
        new_tokens.slice(first, first + copies).map(async (tokens, copy): Promise<TextGenerationOutput> => {
          const counts: GenerationCounts | null = options.return_dict
            ? {
                finish_reason: finish_reasons[first + copy]!,
                prompt_tokens: item.ids.length,
                completion_tokens: tokens.length,
              }
            : null;
          if (return_tensors)
            return { generated_token_ids: [...(return_full_text ? item.ids : []), ...tokens], ...counts };
          const text = await newText(tokenizer, item.ids, tokens, decoding);
          return { generated_text: return_full_text ? whole(item, text) : text, ...counts };
        }),
      );
    }
  }
  return results;
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
