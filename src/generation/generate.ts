import { letOthersRun } from '../base/async.js';
import { GenerationError } from '../base/errors.js';
import { checkMemory } from '../base/memory.js';
import { beamSearch } from './beam.js';
import type { GenerationConfig, ResolvedOptions } from './config.js';
import { checkEffects } from './effects.js';
import type { EngineState, GenerationEngine } from './engine.js';
import { Guidance } from './guidance.js';
import { GENERATE_TABLE, optionsOf, readNegativePrompts, readPrompts } from './inputs.js';
import type { GenerateInputs, GenerateOutput, Prompt } from './inputs.js';
import { freshSeed, RandomStream } from './random.js';
import { criteriaOf, limitOf, newTokens, processorsOf, streamOf } from './run.js';
import type { Row, Run } from './run.js';
import { sampleRows } from './sample.js';

/**
 * Generates text, as ids: transformers' GenerationMixin.generate() for a model with a state of fixed size.
 *
 * Each row's result is what the row would give alone: padding changes nothing, max_length and min_length count a row's
 * own ids, and the random numbers belong to the row.
 *
 * @example
 * const { new_tokens } = await generate(engine, model.generation_config, { input_ids: [[5, 7]], max_new_tokens: 40 });
 *
 * @param engine the model
 * @param config the model's own options; those of the call win
 * @throws GenerationError for a wrong or unsupported option or input, by name; and what the streamer, a processor or an
 *   abort during the prefill throws
 */
export async function generate(
  engine: GenerationEngine,
  config: GenerationConfig,
  inputs: GenerateInputs,
): Promise<GenerateOutput> {
  return runCall(engine, await prepareCall(engine, config, inputs));
}

/** A call of generate() whose options are resolved and whose prompts are read: both once. */
export interface GenerateCall {
  readonly inputs: GenerateInputs;
  readonly options: ResolvedOptions;
  readonly prompts: readonly Prompt[];
  /** Ids from here on pad the vocabulary and are never chosen. */
  readonly vocab_limit: number | undefined;
}

/** Whoever reads from the streamer must not wait for ever. */
export async function tellingStreamer<T>(
  { streamer }: Pick<GenerateInputs, 'streamer'>,
  work: () => T | Promise<T>,
): Promise<T> {
  try {
    return await work();
  } catch (error) {
    streamer?.fail?.(error);
    throw error;
  }
}

/**
 * Resolves the options of a call and reads its prompts.
 *
 * @param config the model's own options; those of the call win
 * @param known how many ids the model's own tokenizer has, asked where the call does not say
 * @throws as generate() for options and inputs
 */
export function prepareCall(
  engine: GenerationEngine,
  config: GenerationConfig,
  inputs: GenerateInputs,
  known?: () => Promise<number | undefined>,
): Promise<GenerateCall> {
  return tellingStreamer(inputs, async () => {
    const options = resolveOptions(config, inputs);
    const vocab_limit = inputs.vocab_limit ?? inputs.tokenizer?.vocab_size ?? (await known?.());
    checkInputs(options, inputs, engine, vocab_limit);
    const prompts = readPrompts(inputs, options, engine.vocab_size);
    checkLengths(options, prompts);
    return { inputs, options, prompts, vocab_limit };
  });
}

/** Generates what was asked for. */
export function runCall(engine: GenerationEngine, call: GenerateCall): Promise<GenerateOutput> {
  return tellingStreamer(call.inputs, () => generateRows(engine, call));
}

async function generateRows(engine: GenerationEngine, call: GenerateCall): Promise<GenerateOutput> {
  const { inputs, options, prompts } = call;
  const streamer = inputs.streamer ?? undefined;
  const run = await start(engine, call);
  let failed = true;
  try {
    await streamer?.put(prompts.map((p) => Array.from(p.feed)));
    await prefill(run);
    const copies = options.num_beams > 1 ? options.num_beams : options.num_return_sequences;
    await repeatRows(run, copies);
    const output = options.num_beams > 1 ? await searchBeams(run) : await sample(run, copies);
    await streamer?.end();
    if (inputs.return_state) output.state = run.state;
    failed = false;
    return output;
  } finally {
    run.guidance?.dispose();
    // The state of a caller stays; a state that is returned becomes the caller's.
    const keep = run.state === inputs.state || (inputs.return_state && !failed);
    if (!keep) run.state.dispose();
  }
}

/**
 * The options that a call of generate() runs with: its own win over its `generation_config`, which wins over the model's.
 *
 * @param config the model's own options
 * @throws GenerationError for an unknown or unsupported option or a wrong value, by name
 */
function resolveOptions(config: GenerationConfig, inputs: GenerateInputs): ResolvedOptions {
  GENERATE_TABLE.check(inputs);
  return config.resolve(optionsOf(inputs), inputs.generation_config);
}

/**
 * As resolveOptions(), and refuses options that have no effect beside the others of the call.
 * @param whole whether the caller gets a GenerateOutput
 */
export function resolveCall(config: GenerationConfig, inputs: GenerateInputs, whole = false): ResolvedOptions {
  const resolved = resolveOptions(config, inputs);
  const { do_sample, num_beams } = resolved;
  const gets = whole || resolved.return_dict_in_generate || inputs.return_state === true;
  checkEffects(optionsOf(inputs), { do_sample, num_beams, whole: gets });
  return resolved;
}

function checkInputs(
  o: ResolvedOptions,
  inputs: GenerateInputs,
  engine: GenerationEngine,
  limit: number | undefined,
): void {
  const beams = o.num_beams > 1;
  if (beams && inputs.streamer) {
    throw new GenerationError('A streamer cannot follow beam search, which rewrites what it wrote. Set num_beams: 1.', {
      option: 'streamer',
    });
  }
  if (beams && inputs.return_state) {
    throw new GenerationError(
      'return_state is not offered with num_beams. Feed the row you choose with model.prefill() instead.',
      { option: 'return_state' },
    );
  }
  if (o.stop_strings.length > 0 && !inputs.tokenizer) {
    throw new GenerationError('stop_strings needs the tokenizer: pass tokenizer to generate().', {
      option: 'stop_strings',
    });
  }
  if (limit !== undefined && !(Number.isInteger(limit) && limit > 0)) {
    throw new GenerationError(`vocab_limit is ${limit}; expected an integer of 1 or more.`, { got: limit });
  }
  for (const name of ['eos_token_id', 'suppress_tokens', 'begin_suppress_tokens', 'forced_eos_token_id'] as const) {
    const wrong = o[name]?.find((id) => id >= engine.vocab_size);
    // An end token that the model cannot write never comes, which is a row without end and rarely what was meant.
    if (wrong !== undefined) {
      throw new GenerationError(`${name} names the id ${wrong}; the model's vocabulary has ${engine.vocab_size} ids.`, {
        option: name,
        got: wrong,
        vocab_size: engine.vocab_size,
      });
    }
  }
}

function checkLengths(o: ResolvedOptions, prompts: readonly Prompt[]): void {
  prompts.forEach(({ seen }, row) => {
    if (limitOf(o, seen.length) >= 1) return;
    throw new GenerationError(
      `The prompt in row ${row} has ${seen.length} ids, and max_length is ${o.max_length}: no room for a new one. Raise ` +
        `max_length, or set max_new_tokens, which does not count the prompt.`,
      { option: 'max_length', row, got: o.max_length, length: seen.length },
    );
  });
}

/** @throws DeviceError for more rows than the host has memory for */
function checkRoom(engine: GenerationEngine, o: ResolvedOptions, prompts: number): void {
  const option = o.num_beams > 1 ? 'num_beams' : 'num_return_sequences';
  const copies = o[option];
  const rows = prompts * copies;
  checkMemory(
    engine.memoryFor?.(rows) ?? 0,
    `generate(): ${rows} rows (${copies > 1 ? `${prompts} × ${option} ${copies}` : 'prompts'})`,
    copies > 1 ? `Lower ${option}, or pass fewer prompts at once.` : 'Pass fewer prompts at once (batch_size).',
  );
}

async function start(engine: GenerationEngine, call: GenerateCall): Promise<Run> {
  const { options, inputs, prompts, vocab_limit } = call;
  inputs.signal?.throwIfAborted();
  checkRoom(engine, options, prompts.length);
  const negative = options.guidance_scale === null ? null : readNegativePrompts(inputs, prompts, engine.vocab_size);
  const guidance = negative
    ? await Guidance.create(engine, options.guidance_scale!, negative, inputs.signal ?? undefined)
    : null;
  let state: EngineState;
  try {
    state = inputs.state ?? (await engine.createState(prompts.length));
  } catch (error) {
    guidance?.dispose();
    throw error;
  }
  const run: Run = {
    engine,
    state,
    options,
    inputs,
    prompts,
    guidance,
    criteria: criteriaOf(options, inputs),
    seed: options.seed ?? freshSeed(),
    vocab_limit,
    keepState: Boolean(inputs.return_state) || (inputs.state != null && options.num_return_sequences === 1),
    replaceState(next) {
      if (run.state !== inputs.state) run.state.dispose();
      run.state = next;
    },
  };
  return run;
}

async function prefill(run: Run): Promise<void> {
  const { engine, prompts, options, inputs } = run;
  const signal = inputs.signal ?? undefined;
  const rows = prompts.map((p) => p.feed);
  // Nothing to feed where a state goes on as it is.
  if (rows.every((row) => row.length === 0)) return;
  const size = options.prefill_chunk_size;
  if (size === null) return engine.prefill(run.state, rows, { signal, on_progress: inputs.on_progress });
  const longest = Math.max(...rows.map((row) => row.length));
  for (let at = 0; at < longest; at += size) {
    const chunk = rows.map((row) => row.subarray(at, at + size));
    await engine.prefill(run.state, chunk, { signal });
    await inputs.on_progress?.(Math.min(at + size, longest), longest);
    await letOthersRun();
  }
}

/** Makes `copies` rows of each prompt's row, side by side. */
async function repeatRows(run: Run, copies: number): Promise<void> {
  if (copies === 1) return;
  const rows = run.prompts.flatMap((_, batch_id) => Array.from({ length: copies }, () => batch_id));
  run.replaceState(await run.state.select(rows));
  await run.guidance?.select(rows);
}

async function sample(run: Run, copies: number): Promise<GenerateOutput> {
  const { options: o, prompts, inputs } = run;
  const rows = prompts.flatMap((prompt, batch_id) =>
    Array.from({ length: copies }, (_, copy): Row => {
      const stream = streamOf(inputs, batch_id, copies) + copy;
      return {
        batch_id,
        ids: prompt.seen.slice(),
        prompt_length: prompt.seen.length,
        limit: limitOf(o, prompt.seen.length),
        processors: processorsOf(run, batch_id),
        random: o.do_sample ? new RandomStream(run.seed, stream) : null,
        finish: null,
        closed: false,
      };
    }),
  );
  const trace = await sampleRows(run, rows);
  return {
    ...collect(
      run,
      rows.map((row) => ({ batch_id: row.batch_id, tokens: newTokens(row) })),
    ),
    finish_reasons: rows.map((row) => row.finish!),
    ...(o.output_scores ? { scores: trace.scores } : {}),
    ...(o.output_logits ? { logits: trace.logits } : {}),
  };
}

async function searchBeams(run: Run): Promise<GenerateOutput> {
  const { rows, scores, logits } = await beamSearch(run);
  return {
    ...collect(run, rows),
    finish_reasons: rows.map((row) => row.finish),
    sequences_scores: rows.map((row) => row.score),
    beam_indices: rows.map((row) => row.origins),
    ...(run.options.output_scores ? { scores } : {}),
    ...(run.options.output_logits ? { logits } : {}),
  };
}

function collect(
  run: Run,
  rows: readonly { batch_id: number; tokens: number[] }[],
): Pick<GenerateOutput, 'sequences' | 'new_tokens'> {
  const longest = Math.max(...rows.map(({ tokens }) => tokens.length));
  const sequences = rows.map(({ batch_id, tokens }) => [
    ...run.prompts[batch_id]!.given,
    ...tokens,
    ...new Array<number>(longest - tokens.length).fill(run.options.pad_token_id),
  ]);
  return { sequences, new_tokens: rows.map(({ tokens }) => tokens) };
}
