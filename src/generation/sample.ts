import { letOthersRun } from '../base/async.js';
import type { EngineSampling } from './engine.js';
import { argmax, draw, hasInvalid, hasNaN, noChoice } from './scores.js';
import { applyProcessors } from './processors.js';
import { finishOf } from './run.js';
import type { Row, Run } from './run.js';

/** Scores and logits of each step, where the caller asked for them. */
export interface Trace {
  scores: Float32Array[][];
  logits: Float32Array[][];
}

/**
 * Greedy decoding and sampling: chooses tokens for all rows until each has ended. Uses the engine's own sampling, in
 * blocks of tokens, where it can express the options; what comes out does not depend on that.
 */
export async function sampleRows(run: Run, rows: readonly Row[]): Promise<Trace> {
  const trace: Trace = { scores: [], logits: [] };
  const sampling = engineSampling(run);
  /** Rows that the state still holds, in its order. */
  let live = rows.slice();
  while (rows.some((row) => row.finish === null)) {
    if (run.inputs.signal?.aborted) {
      for (const row of rows) row.finish ??= 'abort';
      break;
    }
    const before = rows.map((row) => row.ids.length);
    if (sampling && !isLastToken(run, rows)) await decodeBlock(run, rows, sampling);
    else live = await decodeStep(run, rows, live, trace);
    await run.inputs.streamer?.put(rows.map((row, i) => row.ids.slice(before[i])));
    await letOthersRun(); // that is where an abort is seen
  }
  return trace;
}

/**
 * Whether each row may have one token more, of which nobody wants the state: then the engine need not read it, and a first call of one token
 * loads no program for that. Not where tokens are drawn, which the engine does in float32.
 */
function isLastToken({ keepState, options }: Run, rows: readonly Row[]): boolean {
  const going = rows.filter((row) => row.finish === null);
  const last = going.every((row) => row.ids.length - row.prompt_length === row.limit - 1);
  return last && !keepState && !options.do_sample;
}

/** One token for each row, chosen here. Returns the rows that the state holds afterwards. */
async function decodeStep(run: Run, rows: readonly Row[], live: Row[], trace: Trace): Promise<Row[]> {
  const { engine, guidance, options } = run;
  const logits = await engine.logits(run.state);
  const unconditional = await guidance?.unconditional();
  const empty = new Float32Array(0);
  const keptScores: Float32Array[] = rows.map(() => empty);
  const keptLogits: Float32Array[] = rows.map(() => empty);
  for (const [at, row] of live.entries()) {
    if (row.finish !== null) continue;
    const number = rows.indexOf(row);
    const scores = logits[at]!;
    if (!options.remove_invalid_values && hasInvalid(scores)) throw noChoice(true, number, row.ids.length);
    if (options.output_logits) keptLogits[number] = scores.slice();
    if (unconditional) guidance!.apply(scores, unconditional[at]!);
    applyProcessors(row.processors, row.ids, scores, number);
    if (options.output_scores) keptScores[number] = scores;
    row.ids.push(choose(scores, row, number));
    const count = row.ids.length - row.prompt_length;
    row.finish = await finishOf(run, row.ids, count, row.limit, scores, number);
  }
  if (options.output_scores) trace.scores.push(keptScores);
  if (options.output_logits) trace.logits.push(keptLogits);
  return feed(run, live);
}

/** The chosen id: the best (the first of equals), or one drawn with the row's next random number. */
function choose(scores: Float32Array, row: Row, number: number): number {
  const id = row.random ? draw(scores, row.random.uniform()) : argmax(scores).index;
  const nan = hasNaN(scores);
  if (id >= 0 && !nan) return id;
  throw noChoice(nan, number, row.ids.length);
}

/** Feeds the tokens just chosen. Rows that ended are dropped or left where they are. */
async function feed(run: Run, live: Row[]): Promise<Row[]> {
  const { engine, guidance, options } = run;
  const going = live.filter((row) => row.finish === null);
  const last = (row: Row): number => row.ids.at(-1)!;
  if (run.keepState) {
    // A row that has ended must not move on, and the token that ended it belongs to its state.
    const fed = live.map((row) => (row.closed ? new Int32Array(0) : Int32Array.of(last(row))));
    for (const row of live) row.closed = row.finish !== null;
    if (fed.every((ids) => ids.length === 1)) await engine.step(run.state, Int32Array.from(live, last));
    else await engine.prefill(run.state, fed);
    await guidance?.step(Int32Array.from(live, last));
    return live;
  }
  if (going.length === 0) return live;
  // On an engine without compiled shapes, rows that ended are taken out once they are half of the work.
  let kept = live;
  if (engine.kind === 'eager' && going.length <= live.length / 2) {
    const selection = going.map((row) => live.indexOf(row));
    run.replaceState(await run.state.select(selection));
    await guidance?.select(selection);
    kept = going;
  }
  const pad = options.pad_token_id < engine.vocab_size ? options.pad_token_id : 0;
  const tokens = Int32Array.from(kept, (row) => (row.finish === null ? last(row) : pad));
  await engine.step(run.state, tokens);
  await guidance?.step(tokens);
  return kept;
}
/** A block of tokens for each row, chosen by the engine. */
async function decodeBlock(run: Run, rows: readonly Row[], sampling: EngineSampling): Promise<void> {
  const { engine, options, inputs } = run;
  const going = rows.filter((row) => row.finish === null);
  const done = going[0]!.ids.length - going[0]!.prompt_length;
  const room = going.map((row) => row.limit - (row.ids.length - row.prompt_length));
  let count = Math.max(1, engine.preferred_block ?? 1);
  // the first token as soon as there is one, where that costs no more than a token
  if (inputs.streamer) count = Math.min(count, engine.streamed_block ?? (done === 0 ? 1 : STREAMED_BLOCK));
  // Tokens chosen beyond a row's end are thrown away; with a state to keep there must be none.
  count = Math.min(count, run.keepState ? Math.min(...room) : Math.max(...room));
  if (run.keepState && (options.stop_strings.length > 0 || options.max_time !== null)) count = 1;
  let suppress = sampling.suppress;
  if (done < options.min_new_tokens) {
    suppress = [...suppress, ...options.eos_token_id];
    count = Math.min(count, options.min_new_tokens - done);
  }
  if (done === 0 && options.begin_suppress_tokens.length > 0) {
    suppress = [...suppress, ...options.begin_suppress_tokens];
    count = 1;
  }
  const none = new Int32Array(0);
  const history = rows.map((row) => (options.repetition_penalty === 1 ? none : Int32Array.from(row.ids)));
  const uniforms = options.do_sample
    ? rows.map((row) => Float32Array.from({ length: count }, () => row.random!.uniform()))
    : undefined;
  const finished = rows.map((row) => row.finish !== null);
  const chosen = await engine.decode!(run.state, count, { ...sampling, suppress }, history, uniforms, finished);
  for (const [number, row] of rows.entries()) {
    for (let k = 0; k < count && row.finish === null; k++) {
      row.ids.push(chosen[number]![k]!);
      const total = row.ids.length - row.prompt_length;
      row.finish = await finishOf(run, row.ids, total, row.limit, null, number);
    }
  }
}
/** A reader sees text in pieces of at most this many tokens, unless the engine says otherwise. */
const STREAMED_BLOCK = 8;

/** The options as the engine's own sampling, or null where it cannot express them. */
function engineSampling(run: Run): EngineSampling | null {
  const { engine, options: o, inputs, vocab_limit } = run;
  const here =
    engine.decode === undefined ||
    run.guidance !== null ||
    o.output_scores ||
    o.output_logits ||
    (inputs.logits_processor?.length ?? 0) > 0 ||
    (inputs.stopping_criteria?.length ?? 0) > 0 ||
    inputs.prefix_allowed_tokens_fn != null ||
    o.sequence_bias !== null ||
    o.no_repeat_ngram_size > 0 ||
    o.bad_words_ids !== null ||
    (o.min_length > 0 && o.eos_token_id.length > 0) ||
    o.forced_bos_token_id !== null ||
    o.forced_eos_token_id !== null ||
    o.remove_invalid_values ||
    o.exponential_decay_length_penalty !== null ||
    // Normalised scores choose the same token; only a caller who reads them could tell.
    (o.do_sample && o.top_h !== null);
  if (here) return null;
  const padding =
    vocab_limit === undefined
      ? []
      : Array.from({ length: Math.max(0, engine.vocab_size - vocab_limit) }, (_, i) => vocab_limit + i);
  const sampling: EngineSampling = {
    do_sample: o.do_sample,
    temperature: o.do_sample ? o.temperature : 1,
    top_k: o.do_sample ? o.top_k : 0,
    top_p: o.do_sample ? o.top_p : 1,
    min_p: o.do_sample ? o.min_p : null,
    repetition_penalty: o.repetition_penalty,
    ...(o.do_sample && { typical_p: o.typical_p, epsilon_cutoff: o.epsilon_cutoff, eta_cutoff: o.eta_cutoff }),
    suppress: [...o.suppress_tokens, ...padding],
    eos: o.eos_token_id,
    pad_token_id: o.pad_token_id,
  };
  return engine.canSample?.(sampling, run.state.batch) === false ? null : sampling;
}
