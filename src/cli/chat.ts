/** `mamba2 chat`: a conversation in the terminal. The past lives in the model's state; each turn reads the new text only. */
import { createInterface, type Interface } from 'node:readline';
import type { Command } from 'commander';
import { ArgumentError } from '../base/errors.js';
import { readTextFile } from '../base/text_files.js';
import type { ChatSession, TextStreamer } from '../generation/index.js';
import type { Mamba2ForCausalLM } from '../models/mamba2/index.js';
import { loadConversation, saveConversation } from './conversation.js';
import {
  addModelOptions,
  addSamplingOptions,
  loadModel,
  loadTokenizer,
  samplingOptions,
  type ModelOptions,
  type SamplingOptions,
} from './options.js';
import { note, report, write } from './output.js';

interface Options extends ModelOptions, SamplingOptions {
  system?: string;
  chatTemplate?: string;
}

const HELP = `/system TEXT   begin anew with an instruction
/reset         begin anew
/save FILE     keep the conversation and the state that holds it (FILE.json: the messages alone)
/load FILE     go on with one that was kept
/quit          leave (Ctrl-D too); Ctrl-C stops an answer
`;

export function registerChat(program: Command): void {
  const command = program.command('chat').description('talk with a model that was trained to');
  addModelOptions(command);
  addSamplingOptions(command, 512);
  command
    .option('--system <text>', 'an instruction to begin with')
    .option('--chat-template <file>', 'a Jinja template (file) instead of the model’s own')
    .action(chat);
}

async function chat(options: Options): Promise<void> {
  const { ChatSession, TextStreamer } = await import('../generation/index.js');
  const chat_template = options.chatTemplate ? await readTemplate(options.chatTemplate) : undefined;
  const tokenizer = await loadTokenizer(options);
  // A model without a template should say so before its weights are read.
  await tokenizer.apply_chat_template([{ role: 'user', content: 'Hello' }], { chat_template });
  const model = await loadModel(options);
  const session = new ChatSession(await model.engine(), tokenizer, model.generation_config, { chat_template });
  session.reset(options.system);
  const streamer = new TextStreamer(tokenizer, {
    skip_prompt: true,
    skip_special_tokens: true,
    callback_function: write,
  });
  try {
    await converse(session, model, streamer, samplingOptions(options));
  } finally {
    session.dispose();
    model.dispose();
  }
}

async function converse(
  session: ChatSession,
  model: Mamba2ForCausalLM,
  streamer: TextStreamer,
  generation: Record<string, number | boolean>,
): Promise<void> {
  const terminal = createInterface({ input: process.stdin, output: process.stdout, prompt: '> ' });
  let answering: AbortController | null = null;
  let leaving = false;
  terminal.on('SIGINT', () => {
    if (answering) return answering.abort(new Error('stopped'));
    // Once may be a slip of the hand; what was typed is thrown away, as in a shell.
    if (leaving) return terminal.close();
    leaving = true;
    note('\n(Ctrl-C again, or /quit, to leave)');
    terminal.write(null, { ctrl: true, name: 'u' });
    terminal.prompt();
  });
  if (process.stdin.isTTY) note('/help tells what there is beside talking.');
  for await (const line of linesOf(terminal)) {
    leaving = false;
    const text = line.trim();
    if (text === '/quit' || text === '/exit') break;
    try {
      if (text.startsWith('/')) {
        await command(session, model, text);
      } else if (text !== '') {
        answering = new AbortController();
        const { finish_reason } = await session.send(text, { ...generation, streamer, signal: answering.signal });
        await write(finish_reason === 'abort' ? ' …\n' : '\n');
      }
    } catch (error) {
      // A turn that fails ends the turn and not the conversation.
      if (answering?.signal.aborted) note('(stopped)');
      else report(error, false);
    } finally {
      answering = null;
    }
  }
  terminal.close();
}

/** Lines as they are asked for, with a prompt before each; ends at the end of the input. */
async function* linesOf(terminal: Interface): AsyncGenerator<string, void, undefined> {
  const lines: string[] = [];
  let closed = false;
  let wake = (): void => {};
  terminal.on('line', (line) => {
    lines.push(line);
    wake();
  });
  terminal.on('close', () => {
    closed = true;
    wake();
  });
  for (;;) {
    const line = lines.shift();
    if (line !== undefined) yield line;
    else if (closed) return;
    else {
      if (process.stdin.isTTY) terminal.prompt();
      await new Promise<void>((resolve) => (wake = resolve));
    }
  }
}

async function command(session: ChatSession, model: Mamba2ForCausalLM, text: string): Promise<void> {
  const [name, ...words] = text.split(/\s+/);
  const rest = words.join(' ');
  switch (name) {
    case '/help':
      return write(HELP);
    case '/reset':
      session.reset(session.messages[0]?.role === 'system' ? session.messages[0].content : undefined);
      return note('(begun anew)');
    case '/system':
      session.reset(rest || undefined);
      return note(rest ? '(begun anew, with this instruction)' : '(begun anew, without an instruction)');
    case '/save': {
      const withState = await saveConversation(fileOf(name, rest), session, model);
      return note(`(${session.messages.length} messages kept in ${rest}${withState ? ', with the state' : ''})`);
    }
    case '/load': {
      const withState = await loadConversation(fileOf(name, rest), session, model);
      return note(`(${session.messages.length} messages${withState ? ', with the state' : ''})`);
    }
    default:
      throw new ArgumentError(`There is no ${name}. /help tells what there is.`, { got: name });
  }
}

function fileOf(name: string, file: string): string {
  if (file) return file;
  throw new ArgumentError(`${name} needs the name of a file: ${name} talk.safetensors`, { got: file });
}

async function readTemplate(file: string): Promise<string> {
  return readTextFile(file, ArgumentError);
}
