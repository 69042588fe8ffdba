/** Reads the text of an answer as content and tool calls, while it is written. */

/** What an answer goes on with. */
export interface Delta {
  content?: string;
  tool_calls?: { index: number; id?: string; type?: 'function'; function: { name?: string; arguments?: string } }[];
}

export interface AnswerReader {
  /** @param last nothing comes after this text */
  push(text: string, last: boolean): Delta;
  /** Whether there was a call. */
  readonly called: boolean;
}

/** Everything is content. */
export function plainReader(): AnswerReader {
  return { called: false, push: (text) => (text === '' ? {} : { content: text }) };
}
