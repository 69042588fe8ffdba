/** Calls that take and give RecurrentStates: reading a prompt, and generating from what was read. */
import { ArgumentError, GenerationError } from '../base/errors.js';
import type { GenerationEngine } from '../generation/engine.js';
import { prepareCall, runCall } from '../generation/generate.js';
import { checkIds, type IdsLike, readRows } from '../generation/ids.js';
import type { GenerateInputs, GenerateOutput } from '../generation/inputs.js';
import { Tokenizer } from '../tokenizers/index.js';
import type { CausalLM } from './causal_lm.js';
import { RecurrentState } from './state.js';

export type { RecurrentState };

/** A prompt, or several: texts or ids, the latter also as a tensor [b, t] or [t]. */
export type PrefillInput = string | readonly string[] | IdsLike;

export interface PrefillOptions {
  /** Turns text into ids. Default: the one in the model's folder. */
  tokenizer?: Tokenizer;
  /** Adds the tokenizer's special tokens to a text. Default: where no state is given. */
  add_special_tokens?: boolean;
  /** A state to go on from: moved on in place and returned. Rows may then be empty. Default: a fresh one. */
  state?: RecurrentState;
  /** Stops between segments by throwing its reason. */
  signal?: AbortSignal;
  /** Called after each segment with ids done and in all. */
  on_progress?: (done: number, total: number) => unknown;
}

type Resolved = Omit<PrefillOptions, 'tokenizer'> & { tokenizer: Tokenizer | (() => Promise<Tokenizer | null>) };

/** See CausalLM.prefill. */
export async function prefillState(model: CausalLM, prompt: PrefillInput, options: Resolved): Promise<RecurrentState> {
  const { signal, on_progress: onProgress } = options;
  signal?.throwIfAborted();
  const rows = await rowsOf(prompt, options);
  const given = options.state;
  if (given) checkOwn(model, given);
  const empty = rows.findIndex((row, i) => row.length === 0 && !given?.seen[i]);
  if (rows.length === 0 || empty >= 0) {
    throw new ArgumentError(
      `prefill: ${rows.length === 0 ? 'there is no prompt' : `the prompt of row ${empty} is empty`}; expected at least one token`,
      { row: empty },
    );
  }
  rows.forEach((row, i) => checkIds(row, i, model.config.vocab_size, 'prompt'));
  const engine = await model.engine();
  const state =
    given ??
    new RecurrentState(model, await engine.createState(rows.length), new Array<number[]>(rows.length).fill([]));
  try {
    if (rows.some((row) => row.length > 0) || state.batch !== rows.length) {
      await engine.prefill(
        state.engine_state,
        rows.map((row) => Int32Array.from(row)),
        { signal, on_progress: onProgress },
      );
    }
    return state;
  } catch (error) {
    if (!given) state.dispose();
    throw error;
  } finally {
    if (given?.batch === rows.length || !given) noteRead(state, rows);
  }
}

function noteRead(state: RecurrentState, rows: readonly (readonly number[])[]): void {
  try {
    state.noteFed(rows);
  } catch {
    // disposed after a failure: nobody will ask
  }
}

async function rowsOf(prompt: PrefillInput, options: Resolved): Promise<number[][]> {
  if (typeof prompt === 'string') return encode([prompt], options);
  const texts = Array.isArray(prompt) && prompt.length > 0 && prompt.every((item) => typeof item === 'string');
  return texts ? encode(prompt, options) : readRows(prompt, 'prompt');
}

async function encode(
  texts: readonly string[],
  { tokenizer, add_special_tokens, state }: Resolved,
): Promise<number[][]> {
  // a Tokenizer is a function, too
  const found = typeof tokenizer === 'function' && !(tokenizer instanceof Tokenizer) ? await tokenizer() : tokenizer;
  if (!found)
    throw new ArgumentError(
      "prefill: a text needs a tokenizer, and the model's folder has none. Pass the option tokenizer, or ids.",
      {},
    );
  const special = add_special_tokens ?? state === undefined;
  return Promise.all(texts.map((text) => found.encode(text, { add_special_tokens: special })));
}

function checkOwn(model: CausalLM, state: RecurrentState): void {
  if (state.model !== model) {
    throw new ArgumentError(
      'The state belongs to another model object. Save it there and load it here, or feed the text to this model.',
      {},
    );
  }
}

/**
 * generate() for a model: a RecurrentState is moved on together with its record of ids, which stand in for `history`, and
 * `return_state` gives one.
 */
export async function generateWithStates(
  model: CausalLM,
  inputs: GenerateInputs,
  engine: GenerationEngine,
  known: () => Promise<number | undefined>,
): Promise<number[][] | GenerateOutput> {
  const { state } = inputs;
  const own = state instanceof RecurrentState ? state : null;
  if (own) {
    checkOwn(model, own);
    if (!inputs.history && !own.ids_known) {
      throw new GenerationError(
        'The state was left in the middle of a call that failed, so it is not known what it has read. Pass `history` with the ids of each row, or go on from a copy made before.',
        { option: 'history' },
      );
    }
  }
  const whole = own ? { ...inputs, state: own.engine_state, history: inputs.history ?? own.ids } : inputs;
  const call = await prepareCall(engine, model.generation_config, whole, known);
  const feeds = call.prompts.map(({ feed }) => [...feed]);
  const before = own?.ids;
  let written: number[][] | undefined;
  try {
    const output = await runCall(engine, call);
    written = output.new_tokens;
    if (own && output.state === own.engine_state) output.state = own;
    else if (output.state && (own || !state))
      wrap(
        model,
        output,
        feeds.map((feed, row) => [...(before?.[row] ?? []), ...feed]),
      );
    return call.options.return_dict_in_generate || inputs.return_state ? output : output.sequences;
  } finally {
    if (own)
      noteRead(
        own,
        feeds.map((feed, row) => [...feed, ...(written?.[row] ?? [])]),
      );
  }
}

/** Makes the state of an output one that knows its ids: those read by the prompt of each row, and those written. */
function wrap(model: CausalLM, output: GenerateOutput, read: readonly (readonly number[])[]): void {
  const copies = output.new_tokens.length / read.length;
  const ids = output.new_tokens.map((tokens, row) => [...read[Math.floor(row / copies)]!, ...tokens]);
  output.state = new RecurrentState(model, output.state!, ids);
}
