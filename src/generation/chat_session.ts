import { GenerationError } from '../base/errors.js';
import { omit } from '../base/omit.js';
import * as kinds from '../base/option_kinds.js';
import { OptionTable } from '../base/options.js';
import type { ChatMessage, ChatTemplateOptions, Tokenizer } from '../tokenizers/index.js';
import type { GenerationConfig } from './config.js';
import type { EngineState, GenerationEngine, StateArrays } from './engine.js';
import { generate } from './generate.js';
import { GENERATE_TABLE, type GenerateInputs } from './inputs.js';
import type { FinishReason } from './stopping.js';

/** Options of a turn: those of generate(), but for what the session itself sets. */
export type TurnOptions = Omit<
  GenerateInputs,
  | 'input_ids'
  | 'attention_mask'
  | 'state'
  | 'history'
  | 'return_state'
  | 'tokenizer'
  | 'num_beams'
  | 'num_return_sequences'
>;

/** What the session sets itself. */
const OWN = [
  ...(['input_ids', 'attention_mask', 'state', 'history', 'return_state'] as const),
  ...(['tokenizer', 'num_beams', 'num_return_sequences'] as const),
];
const TURN_TABLE = new OptionTable<TurnOptions>('send()', omit(GENERATE_TABLE.rules, ...OWN), {
  others: {
    ...GENERATE_TABLE.others,
    ...Object.fromEntries(OWN.map((name) => [name, { why: 'a chat session sets it itself', off: [null] }])),
  },
  error: GenerationError,
});

type TemplateOptions = Pick<ChatTemplateOptions, 'chat_template' | 'tools' | 'template_variables'>;
const TEMPLATE_TABLE = new OptionTable<TemplateOptions>('new ChatSession()', {
  chat_template: { kind: kinds.orNull(kinds.text) },
  tools: { kind: kinds.orNull(kinds.listOf(kinds.anything)) },
  template_variables: { kind: kinds.object },
});

/** What a turn gave. */
export interface Turn {
  /** The answer, without special tokens. */
  text: string;
  finish_reason: FinishReason;
  /** Ids that had to be fed before the answer: those of the new text, where the template allows it. */
  fed: number;
  new_tokens: number[];
}

/** A conversation with its states, on the host: to keep in a file. */
export interface ChatSnapshot {
  messages: ChatMessage[];
  /** What the model has read: after the last answer, and before it. Empty where there is no state. */
  points: { ids: number[]; text: string; arrays: StateArrays }[];
}

/** A point in the conversation: the state after `ids`, whose text is `text`. */
interface Point {
  state: EngineState;
  ids: number[];
  text: string;
}

/**
 * A conversation whose past lives in the model's state: each turn feeds the new text only.
 *
 * A template may write an answer otherwise than the model did (trimmed, or with another end). Then the turn is fed again
 * from where it began; and where even earlier turns are written anew, the whole conversation is. What the model has read
 * is always what the template says.
 *
 * @example
 * const session = new ChatSession(await model.engine(), tokenizer, model.generation_config);
 * const { text } = await session.send('Who is Emma?', { max_new_tokens: 100 });
 * session.dispose();
 */
export class ChatSession {
  /** The conversation so far. */
  messages: ChatMessage[] = [];
  /** After the last answer, and before it. */
  private end: Point | null = null;
  private start: Point | null = null;

  /** @param template options of the chat template for every turn */
  constructor(
    private readonly engine: GenerationEngine,
    private readonly tokenizer: Tokenizer,
    private readonly config: GenerationConfig,
    private readonly template: TemplateOptions = {},
  ) {
    TEMPLATE_TABLE.check(template);
  }

  /**
   * Says something and waits for the answer. An abort during the answer keeps what there is of it; when the turn fails
   * before (or is aborted while the text is being read), the conversation is as it was.
   *
   * @throws TokenizerError when there is no chat template or it refuses the conversation; GenerationError as generate()
   */
  async send(content: string, options: TurnOptions = {}): Promise<Turn> {
    TURN_TABLE.check(options);
    const messages = [...this.messages, { role: 'user', content }];
    const text = await this.tokenizer.apply_chat_template(messages, {
      ...this.template,
      add_generation_prompt: true,
      tokenize: false,
    });
    const from = await this.pointBefore(text);
    try {
      const ids = await this.tokenizer.encode(text.slice(from.text.length), { add_special_tokens: false });
      if (ids.length > 0) {
        await this.engine.prefill(from.state, [Int32Array.from(ids)], {
          signal: options.signal ?? undefined,
          on_progress: options.on_progress,
        });
      } else if (from.ids.length === 0) {
        throw new GenerationError('The chat template gives an empty text: there is nothing to answer.', { messages });
      }
      const before: Point = { state: await from.state.clone(), ids: [...from.ids, ...ids], text };
      this.forget();
      this.start = before;
      const { new_tokens, finish_reasons } = await generate(this.engine, this.config, {
        ...options,
        tokenizer: this.tokenizer,
        input_ids: [[]],
        state: from.state,
        history: [before.ids],
      });
      const tokens = new_tokens[0]!;
      const answer = await this.decode(ids, tokens, true);
      this.end = {
        state: from.state,
        ids: [...before.ids, ...tokens],
        text: text + (await this.decode(ids, tokens, false)),
      };
      this.messages = [...messages, { role: 'assistant', content: answer }];
      return { text: answer, finish_reason: finish_reasons[0]!, fed: ids.length, new_tokens: tokens };
    } catch (error) {
      from.state.dispose();
      throw error;
    }
  }

  /** Begins anew, with a system message where one is given. */
  reset(system?: string): void {
    this.messages = system ? [{ role: 'system', content: system }] : [];
    this.forget();
  }

  /** Takes over a conversation; it is read when the next message is sent. */
  load(messages: readonly ChatMessage[]): void {
    this.messages = messages.map((message) => ({ ...message }));
    this.forget();
  }

  /** The conversation and the states that hold it. */
  async snapshot(): Promise<ChatSnapshot> {
    const points: ChatSnapshot['points'] = [];
    for (const point of [this.end, this.start]) {
      if (point) points.push({ ids: [...point.ids], text: point.text, arrays: await point.state.toArrays() });
    }
    return { messages: this.messages.map((message) => ({ ...message })), points };
  }

  /**
   * Goes on with a snapshot of a session with the same model: nothing is read again, where the template allows it.
   * @throws ArgumentError for states of another size; the session is then as it was
   */
  async restore({ messages, points }: ChatSnapshot): Promise<void> {
    const made: Point[] = [];
    try {
      for (const { ids, text, arrays } of points) {
        made.push({ state: await this.engine.fromArrays(arrays), ids: [...ids], text });
      }
    } catch (error) {
      made.forEach(({ state }) => state.dispose());
      throw error;
    }
    this.load(messages);
    [this.end = null, this.start = null] = made;
  }

  /** Lets go of the states. The session can go on: it reads the conversation again. */
  dispose(): void {
    this.forget();
  }

  /** The furthest point whose text begins the new one; its state is a copy, to be advanced. */
  private async pointBefore(text: string): Promise<Point> {
    for (const point of [this.end, this.start]) {
      if (point && text.startsWith(point.text)) return { ...point, state: await point.state.clone() };
    }
    return { state: await this.engine.createState(1), ids: [], text: '' };
  }

  private async decode(
    ids: readonly number[],
    tokens: readonly number[],
    skip_special_tokens: boolean,
  ): Promise<string> {
    const context = ids.slice(-8);
    const before = await this.tokenizer.decode(context, { skip_special_tokens });
    return (await this.tokenizer.decode([...context, ...tokens], { skip_special_tokens })).slice(before.length);
  }

  private forget(): void {
    this.end?.state.dispose();
    this.start?.state.dispose();
    this.end = this.start = null;
  }
}
