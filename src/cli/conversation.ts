/** Conversations as files: with the model's states (safetensors), or the messages alone (JSON). */
import { ArgumentError } from '../base/errors.js';
import { parseJson, readTextFile } from '../base/text_files.js';
import { writeFileAtomic } from '../base/whole_files.js';
import type { ChatSession, ChatSnapshot } from '../generation/index.js';
import type { Mamba2ForCausalLM } from '../models/mamba2/index.js';
import type { ChatMessage } from '../tokenizers/index.js';

/** Imported when needed: they bring TensorFlow.js along. */
const stateFiles = () => Promise.all([import('../engine/states/arrays.js'), import('../engine/states/file.js')]);

/** Whether a file is to hold messages alone. */
const isJson = (file: string): boolean => file.toLowerCase().endsWith('.json');

/**
 * Keeps a conversation: with its states unless the file's name ends in .json, or nothing was read yet.
 * @returns whether states are in it
 * @throws SaveError; nothing half written is left
 */
export async function saveConversation(file: string, session: ChatSession, model: Mamba2ForCausalLM): Promise<boolean> {
  const { messages, points } = await session.snapshot();
  if (isJson(file)) {
    await writeFileAtomic(file, JSON.stringify({ messages }, null, 2) + '\n');
    return false;
  }
  if (points.length === 0) {
    throw new ArgumentError(
      `There is no state to keep yet: say something first, or keep the messages in a .json file.`,
      { file },
    );
  }
  const [{ stackStateArrays }, { writeStateFile }] = await stateFiles();
  const arrays = stackStateArrays(
    model.weights.network,
    points.map((point) => point.arrays),
  );
  const extra = { messages: JSON.stringify(messages), texts: JSON.stringify(points.map(({ text }) => text)) };
  await writeStateFile(file, model.weights, { arrays, ids: points.map(({ ids }) => ids), extra });
  return true;
}

/**
 * Goes on with a conversation that was kept.
 * @returns whether states came with it: otherwise the conversation is read when the next message is sent
 * @throws ArgumentError when there is no conversation in the file; CheckpointError for states of another model
 */
export async function loadConversation(file: string, session: ChatSession, model: Mamba2ForCausalLM): Promise<boolean> {
  if (isJson(file)) {
    const text = await readTextFile(file, ArgumentError);
    session.load(messagesOf(parse(file, text), file));
    return false;
  }
  const [{ rowOfStateArrays }, { readStateFile }] = await stateFiles();
  const { arrays, ids, extra } = await readStateFile(file, model.weights);
  const messages = messagesOf({ messages: parse(file, extra.messages ?? 'null') }, file);
  const texts = parse(file, extra.texts ?? 'null');
  if (
    !Array.isArray(texts) ||
    texts.length !== ids.length ||
    texts.length > 2 ||
    texts.some((t) => typeof t !== 'string')
  ) {
    throw noConversation(file);
  }
  const points: ChatSnapshot['points'] = (texts as string[]).map((text, row) => ({
    text,
    ids: ids[row]!,
    arrays: rowOfStateArrays(arrays, row),
  }));
  await session.restore({ messages, points });
  return true;
}

function parse(file: string, text: string): unknown {
  return parseJson(text, file, ArgumentError);
}

function messagesOf(value: unknown, file: string): ChatMessage[] {
  const messages = (value as { messages?: unknown } | null)?.messages;
  const good =
    Array.isArray(messages) &&
    messages.every((m: Partial<ChatMessage> | null) => typeof m?.role === 'string' && typeof m.content === 'string');
  if (good) return messages as ChatMessage[];
  throw noConversation(file);
}

function noConversation(file: string): ArgumentError {
  return new ArgumentError(
    `${file} holds no conversation; expected what /save writes: { "messages": [{ "role", "content" }] } in a .json file, ` +
      `or a state with a conversation in any other.`,
    { file },
  );
}
